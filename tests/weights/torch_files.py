"""Files as `torch.save` writes them, assembled by hand: torch is not needed."""

import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

STREAM_HEAD = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19." + pickle.dumps(1001, 2)
MACHINE = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
STORAGES = {
    np.dtype("float64"): "DoubleStorage",
    np.dtype("float32"): "FloatStorage",
    np.dtype("float16"): "HalfStorage",
    np.dtype(ml_dtypes.bfloat16): "BFloat16Storage",
    np.dtype("int64"): "LongStorage",
    np.dtype("int32"): "IntStorage",
    np.dtype("uint8"): "ByteStorage",
    np.dtype("bool"): "BoolStorage",
}
EMPTY = b"ccollections\nOrderedDict\n)R"


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def number(value: int) -> bytes:
    encoded = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(encoded)]) + encoded


def sizes(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key: str, kind: str, size: int) -> bytes:
    words = text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cuda:0")
    return b"(" + words + number(size) + b"tQ"


def tensor(place: bytes, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    arguments = place + number(offset) + sizes(shape) + sizes(strides) + b"\x89" + EMPTY
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def whole(key: str, array: np.ndarray) -> bytes:
    """A tensor that is all of its storage."""
    strides = tuple(stride // array.itemsize for stride in np.empty_like(array, order="C").strides)
    return tensor(storage(key, STORAGES[array.dtype], array.size), 0, array.shape, strides)


def mapping(entries: Mapping[str, bytes]) -> bytes:
    """An OrderedDict with the attribute `_metadata`, as torch writes a state dict."""
    items = b"".join(text(key) + value for key, value in entries.items())
    return EMPTY + b"(" + items + b"u}" + text("_metadata") + EMPTY + b"sb"


def state_dict(arrays: Mapping[str, np.ndarray]) -> bytes:
    return mapping({name: whole(str(k), array) for k, (name, array) in enumerate(arrays.items())})


def contents(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The storages to which `state_dict` refers."""
    return {str(k): array for k, array in enumerate(arrays.values())}


def write_zip(path: Path, value: bytes, storages: Mapping[str, np.ndarray]) -> Path:
    """A file of torch 1.6 or later: `value` is a pickle without its first and last bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + value + b".")
        archive.writestr("archive/byteorder", "little")
        for key, array in storages.items():
            archive.writestr(f"archive/data/{key}", array.tobytes())
        archive.writestr("archive/version", "3\n")
    return path


def write_stream(path: Path, value: bytes, storages: Mapping[str, np.ndarray]) -> Path:
    """A file of torch before 1.6."""
    head = STREAM_HEAD + pickle.dumps(MACHINE, 2) + b"\x80\x02" + value + b"."
    parts = [struct.pack("<q", array.size) + array.tobytes() for array in storages.values()]
    path.write_bytes(head + pickle.dumps(list(storages), 2) + b"".join(parts))
    return path


WRITERS = {"zip": write_zip, "stream": write_stream}
