"""Weight files: PyTorch's two formats, safetensors and Keras's, damaged and made to deceive."""

import contextlib
import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from jaxres.weights import foreign
from tests.faults.fuzz.damage import damaged, damaged_json
from tests.faults.fuzz.reader import Reader
from tests.faults.fuzz.trees import Tree
from tests.weights import keras_files, torch_files, written

ARRAYS = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "bn.running_var": np.ones(3, np.float64),
    "fc.bias": np.array([1, 2, 3], np.int64),
}
MAX_RATIO = 40  # float64 from bytes of int8 does not occur; pickles of small names may grow


def _wrong(tree: Tree, content: dict[str, np.ndarray]) -> str | None:
    given = tree["file"]
    assert isinstance(given, bytes)
    size = sum(array.nbytes for array in content.values())
    return f"{size} bytes from {len(given)}" if size > MAX_RATIO * len(given) else None


def _reader(contents: st.SearchStrategy[bytes]) -> Reader:
    return Reader(
        contents.map(lambda content: {"file": content}),
        lambda source, output: foreign.read(source / "file").arrays,
        _wrong,
    )


def _torch(scratch: Path, write: Callable[..., Path], value: bytes, **storages: Any) -> bytes:
    contents = storages or torch_files.contents(ARRAYS)
    return write(scratch / "made", value, contents).read_bytes()


def _hostile_values() -> list[bytes]:
    """Pickles that call, nest, repeat or promise more than there is."""
    place = torch_files.storage("0", "FloatStorage", 24)
    huge = torch_files.storage("0", "FloatStorage", 2**40)
    tensors = [
        torch_files.tensor(huge, 0, (2**20, 2**20), (2**20, 1)),
        torch_files.tensor(place, 0, (2**20, 2**20), (0, 0)),
        torch_files.tensor(place, 2**62, (1,), (1,)),
        torch_files.tensor(place, 0, (2**62, 2**62, 0), (1, 1, 1)),
        torch_files.tensor(place, 0, (1,) * 70, (1,) * 70),
    ]
    calls = [b"cos\nsystem\n(" + torch_files.text("true") + b"tR", b"c__builtin__\neval\n"]
    deep = [b"(" * 50_000 + b"t" * 50_000, b"]" * 50_000 + b"a" * 49_999, b")" + b"\x85" * 50_000]
    doubled = b")q\x00" + b"h\x00h\x00\x86q\x00" * 40
    digits = b"L" + b"9" * 100_000 + b"L\n", b"\x8b\x00\x00\x00\x7f", b"r\xff\xff\xff\x7f"
    made = [torch_files.mapping({"a": tensor}) for tensor in tensors]
    return [*made, *calls, *deep, doubled, *digits]


@contextlib.contextmanager
def torch_zip(scratch: Path) -> Iterator[Reader]:
    """Files of torch 1.6 and later."""
    more = [_zip_bomb(), _member_twice(torch_files.state_dict(ARRAYS))]
    yield _torch_reader(scratch, torch_files.write_zip, more)


@contextlib.contextmanager
def torch_stream(scratch: Path) -> Iterator[Reader]:
    """Files of torch before 1.6, which have no checksum."""
    yield _torch_reader(scratch, torch_files.write_stream, [])


def _torch_reader(scratch: Path, write: Callable[..., Path], more: list[bytes]) -> Reader:
    """Of damaged files, damaged pickles in files that fit them, and hostile files."""
    scratch.mkdir(parents=True)
    file_of = partial(_torch, scratch, write)
    state = torch_files.state_dict(ARRAYS)
    hostile = [*map(file_of, _hostile_values()), *more]
    pickles = damaged(state).map(file_of)
    return _reader(st.one_of(damaged(file_of(state), hostile), pickles, st.sampled_from(hostile)))


def _zip_bomb() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(100 << 20))
    return stream.getvalue()


def _member_twice(state: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + state + b".")
        archive.writestr("b/data.pkl", b"\x80\x02" + state + b".")
    return stream.getvalue()


def _safetensors(header: bytes, content: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + content


@contextlib.contextmanager
def safetensors(scratch: Path) -> Iterator[Reader]:
    """safetensors: a length, a JSON header and bytes, without checksums."""
    del scratch
    header, content = {}, b""
    for name, kind in (("conv.weight", "F32"), ("bn.running_var", "F64"), ("fc.bias", "I64")):
        written = ARRAYS[name].tobytes()
        offsets = [len(content), len(content) + len(written)]
        header[name] = {"dtype": kind, "shape": ARRAYS[name].shape, "data_offsets": offsets}
        content += written
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    lengths = st.sampled_from((0, 1, 2**31, 2**40, 2**63, 2**64 - 1))
    yield _reader(
        st.one_of(
            damaged(_safetensors(text, content)),
            damaged_json(text).map(lambda changed: _safetensors(changed, content)),
            lengths.map(lambda length: _safetensors(text, content, length)),
        )
    )


@contextlib.contextmanager
def imported(scratch: Path) -> Iterator[Reader]:
    """`import_weights`: nothing is left behind unless the file fits the network."""
    from jaxres.weights.importing import import_weights

    scratch.mkdir(parents=True)
    arrays = written.as_torchvision("cifar_resnet20", written.random_weights("cifar_resnet20"))
    valid = written.save_torch(scratch / "whole.pth", arrays).read_bytes()

    @st.composite
    def changed(draw: st.DrawFn) -> bytes:
        name = draw(st.sampled_from(sorted(arrays)))
        array = arrays[name]
        others: list[np.ndarray | None] = [None, array[None], array.astype(np.int32), array.T]
        if array.ndim:
            others += [array[:0], *(np.full_like(array, value) for value in (np.nan, np.inf))]
        other = draw(st.sampled_from(others))
        made = {key: value for key, value in arrays.items() if key != name}
        if other is not None:
            made[name + draw(st.sampled_from(("", "", ".x", "\n")))] = np.ascontiguousarray(other)
        return written.save_torch(scratch / "made.pth", made).read_bytes()

    def read(source: Path, output: Path) -> None:
        import_weights(source / "file", "cifar_resnet20", output / "made")

    contents = st.one_of(damaged(valid), changed(), changed())
    yield Reader(contents.map(lambda content: {"file": content}), read)


def keras_contents(scratch: Path) -> st.SearchStrategy[bytes]:
    """Damaged files of Keras's three formats."""
    scratch.mkdir(parents=True)
    arrays = [ARRAYS["conv.weight"], ARRAYS["bn.running_var"]]
    layers = {"conv": arrays, "dense": arrays[:1]}
    valid = [
        keras_files.write_h5(scratch / "a", layers).read_bytes(),
        keras_files.write_h5(scratch / "b", layers, whole_model=True).read_bytes(),
        keras_files.write_weights_h5(scratch / "c", layers).read_bytes(),
        keras_files.write_archive(scratch / "d", layers).read_bytes(),
    ]
    return st.sampled_from(valid).flatmap(lambda content: damaged(content, valid))


@contextlib.contextmanager
def keras(scratch: Path) -> Iterator[Reader]:
    """Keras's files as `import-weights` reads them, each in a process of its own."""
    yield _reader(keras_contents(scratch))
