"""The contest's arrays (NumPy's files, pickles, packed or not) and its CSV of labels."""

import bz2
import contextlib
import gzip
import io
import lzma
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from hypothesis import strategies as st

from jaxres.data.datasets import modified_mnist
from jaxres.data.readers import arrays
from tests.faults.fuzz.damage import damaged
from tests.faults.fuzz.reader import Reader
from tests.faults.fuzz.trees import Tree

IMAGES = 3
# What packed files may hold, lowered from 4 GiB: so small bombs show that the limit holds.
MAX_UNPACKED_BYTES = 32 << 20
BOMB_BYTES = 64 << 20
CELLS = ("0", "1", "2", "9", "10", "-1", "", " 1", "1.0", "x", "9" * 5000, "٣", '"', "\0", "é")


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def _zip(content: bytes, *, members: int = 1) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for number in range(members):
            archive.writestr(f"array{number}", content)
    return stream.getvalue()


PACK: tuple[Callable[[bytes], bytes], ...] = (
    lambda content: content,
    lambda content: gzip.compress(content, 1, mtime=0),
    bz2.compress,
    lambda content: lzma.compress(content, preset=0),
    _zip,
)


def _valid_arrays() -> list[np.ndarray]:
    images = np.zeros((IMAGES, modified_mnist.SIDE, modified_mnist.SIDE), np.uint8)
    images[:, ::9, ::7] = np.arange(1, IMAGES + 1)[:, None, None] * 60
    return [
        images,
        images.astype(np.float32),
        np.asfortranarray(images),
        images.view(">u1"),
    ]


def _strange_arrays() -> list[Any]:
    shape = (1, modified_mnist.SIDE, modified_mnist.SIDE)
    full = np.full
    return [
        *(full(shape, value, np.float64) for value in (np.nan, np.inf, -1, 256, 1e300, 0.5)),
        *(full(shape, value, np.int64) for value in (-(2**63), 2**62)),
        np.zeros((0, 128, 128), np.uint8),
        np.zeros((1, 128, 127), np.uint8),
        np.zeros((), np.uint8),
        np.zeros(shape, np.complex64),
        np.zeros(shape, np.bool_),
        np.array(["a", "b"]),
        np.array([{"a": 1}], dtype=object),
        np.zeros(3, [("x", "u1"), ("y", "f4")]),
        np.zeros(2, "M8[s]"),
        {"array": np.zeros(shape, np.uint8)},
        [np.zeros(shape, np.uint8)],
        print,
    ]


def _files() -> st.SearchStrategy[bytes]:
    valid = [
        *(_npy(array) for array in _valid_arrays()),
        *(pickle.dumps(_valid_arrays()[0], protocol) for protocol in (2, 3, 4, 5)),
    ]
    strange = [pickle.dumps(value) for value in _strange_arrays()]
    strange += [_npy(value) for value in _strange_arrays() if isinstance(value, np.ndarray)]
    zeros = bytes(BOMB_BYTES)
    huge = b"{'descr': '|u1', 'fortran_order': False, 'shape': (65536, 65536, 65536), }"
    head = b"\x93NUMPY\x01\x00" + (len(huge) + 1).to_bytes(2, "little") + huge + b"\n"
    bombs = [pack(head + zeros) for pack in PACK[1:]] + [head, _zip(b"x", members=3)]
    bombs += [b"\x80\x04" + b"(" * 100_000 + b"t" * 100_000 + b".", b"\x80\x02)" + b"\x85" * 10**5]
    packed = [pack(content) for content in valid[:2] for pack in PACK]
    return st.one_of(
        *(damaged(content, (valid[0], packed[-1])) for content in (*valid, *packed)),
        st.sampled_from(strange),
        st.sampled_from(bombs),
        st.sampled_from(valid),
    )


def _labels() -> st.SearchStrategy[bytes]:
    valid = b"Id,Label\n" + b"".join(b"%d,%d\n" % (k, k) for k in range(IMAGES))
    rows = st.lists(st.lists(st.sampled_from(CELLS), max_size=3).map(",".join), max_size=4)
    made = rows.map(lambda lines: "\n".join(["Id,Label", *lines]).encode())
    encodings = st.sampled_from(("utf-16", "utf-8-sig", "utf-32")).map(valid.decode().encode)
    wide = st.just(b'Id,Label\n"' + b"x" * 200_000 + b'",1\n')
    return st.one_of(st.just(valid), damaged(valid), made, encodings, wide)


@contextlib.contextmanager
def train(scratch: Path) -> Iterator[Reader]:
    """`contest.read_train`: an array and its labels, of which one or both are damaged."""
    del scratch
    labels = b"Id,Label\n" + b"".join(b"%d,%d\n" % (k, k) for k in range(IMAGES))
    array = _npy(_valid_arrays()[0])
    pairs = st.one_of(
        st.tuples(_files(), st.just(labels)),
        st.tuples(_files(), st.just(labels)),
        st.tuples(st.just(array), _labels()),
    )

    def tree_of(pair: tuple[bytes, bytes]) -> Tree:
        return {modified_mnist.TRAIN_IMAGES: pair[0], modified_mnist.TRAIN_LABELS: pair[1]}

    def wrong(tree: Tree, content: Any) -> str | None:
        images, labels = content
        if images.dtype != np.uint8 or images.shape != (
            len(labels),
            modified_mnist.SIDE,
            modified_mnist.SIDE,
        ):
            return f"images of type {images.dtype} and shape {images.shape}"
        return None if set(labels.tolist()) <= set(range(10)) else "labels out of range"

    with mock.patch.object(arrays, "MAX_UNPACKED_BYTES", MAX_UNPACKED_BYTES):
        yield Reader(
            pairs.map(tree_of), lambda source, output: modified_mnist.read_train(source), wrong
        )
