"""One array from a file: NumPy's `.npy`, or the pickle of an array, packed or not.

`numpy.save`, `pickle.dump` and pandas' `to_pickle` write them. Nothing that is in a file is run.
The memory taken is bounded, whatever a header says. The values of a file that is not packed stay in
it until they are looked at, except those of pickle protocols 0 to 2, which are text: reading takes
a few times the file's size. A packed file is unpacked into memory, to `MAX_UNPACKED_BYTES` at most,
and then read likewise.
"""

import bz2
import dataclasses
import gzip
import lzma
import math
import mmap
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from jaxres.data.readers import pickled
from jaxres.data.readers.pickled import (
    Name,
    Reader,
    RefusedGlobal,
    Vocabulary,
    require_count,
    require_tuple,
)
from jaxres.runtime.errors import InputError, os_reason
from jaxres.runtime.files import taken_for_the_file

NPY_MAGIC = b"\x93NUMPY"
PICKLE_MAGICS = (b"\x80", b"cnumpy")  # the second of protocols 0 and 1
# Larger ones can be unpacked to disk first; then they need no memory.
MAX_UNPACKED_BYTES = 4 << 30
MAX_XZ_MEMORY_BYTES = 256 << 20  # xz -9 needs 65 MiB
CHUNK_BYTES = 1 << 20
MAX_DIMENSIONS = 8
# The pickle of an array has under 50 instructions.
MAX_INSTRUCTIONS = 200
ALLOWED = (
    "allowed: one array of numbers, as numpy.save(FILE, array) or pickle.dump(array, FILE) write "
    "it, also packed as .gz, .bz2, .xz or .zip"
)


def read(path: Path) -> np.ndarray:
    """The array in a file, read-only, of integers or floating-point numbers.

    Raises:
        InputError: there is none, it is damaged, or holds anything else.
    """
    if not path.is_file():
        raise InputError(f"no file '{path}'; {ALLOWED}")
    try:
        return _parse(_content(path))
    except RefusedGlobal as refused:
        raise InputError(
            f"'{path}' holds the Python object {str(refused)!r}, which is not read since it could "
            f"run code; {ALLOWED}"
        ) from None
    # The unpackers and NumPy's header parser raise whatever their layers met.
    except Exception as error:
        raise InputError(
            f"cannot read the array in '{path}': {os_reason(error)}; {ALLOWED}"
        ) from error


def _parse(content: memoryview) -> np.ndarray:
    head = bytes(content[: len(NPY_MAGIC)])
    if head == NPY_MAGIC:
        return _read_npy(content)
    if head.startswith(PICKLE_MAGICS):
        return _read_pickle(content)
    instead = taken_for_the_file(bytes(content[:512]))
    raise ValueError(instead or ("it is of another format" if head else "it is empty"))


def _content(path: Path) -> memoryview:
    """The bytes of a file, mapped into memory, or unpacked if its content is packed."""
    with path.open("rb") as file:
        head = file.read(8)
        file.seek(0)
        for magic, unpack in UNPACKERS.items():
            if head.startswith(magic):
                return _bounded(unpack(file))
        if not head:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _bounded(chunks: Iterator[bytes]) -> memoryview:
    content = bytearray()
    for chunk in chunks:
        content += chunk
        if len(content) > MAX_UNPACKED_BYTES:
            raise ValueError(f"it unpacks to more than {MAX_UNPACKED_BYTES} bytes: unpack it first")
    return memoryview(content).toreadonly()


def _chunks(file: Any) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def _gzip(file: BinaryIO) -> Iterator[bytes]:
    return _chunks(gzip.open(file))


def _bz2(file: BinaryIO) -> Iterator[bytes]:
    return _chunks(bz2.open(file))


def _xz(file: BinaryIO) -> Iterator[bytes]:
    # Not lzma.open, which takes as much memory as the header asks for.
    unpacker = lzma.LZMADecompressor(memlimit=MAX_XZ_MEMORY_BYTES)
    while not unpacker.eof:
        packed = file.read(CHUNK_BYTES) if unpacker.needs_input else b""
        if unpacker.needs_input and not packed:
            raise EOFError("it is truncated")
        yield unpacker.decompress(packed, CHUNK_BYTES)


def _zip(file: BinaryIO) -> Iterator[bytes]:
    with zipfile.ZipFile(file) as archive:
        # Folders, and what macOS puts beside every file, are none of its own.
        members = [
            each
            for each in archive.infolist()
            if not each.is_dir() and not PurePosixPath(each.filename).name.startswith("._")
        ]
        if len(members) != 1:
            raise ValueError(f"it is a zip of {len(members)} files in place of one")
        # LZMA would take as much memory as the file asks for, and bzip2 unpacks a block as a whole.
        if members[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError("it is a zip of a file that is neither stored nor deflated")
        with archive.open(members[0]) as member:
            yield from _chunks(member)


UNPACKERS: dict[bytes, Callable[[BinaryIO], Iterator[bytes]]] = {
    b"\x1f\x8b": _gzip,
    b"BZh": _bz2,
    b"\xfd7zXZ\0": _xz,
    b"PK\x03\x04": _zip,
}


def _view(content: Any, dtype: np.dtype, shape: Any, order: Any) -> np.ndarray:
    """The array of a shape whose values are all of `content`."""
    if dtype.kind not in "uif":
        raise ValueError(f"its values are of type '{dtype.str}'")
    if type(shape) is not tuple or len(shape) > MAX_DIMENSIONS:
        raise TypeError(f"no shape of at most {MAX_DIMENSIONS} dimensions")
    needed = math.prod(map(require_count, shape)) * dtype.itemsize
    if needed != len(content):
        raise ValueError(f"its shape {shape} needs {needed} bytes, it has {len(content)}")
    array = np.frombuffer(content, dtype).reshape(shape, order=order)
    array.flags.writeable = False
    return array


def _read_npy(content: memoryview) -> np.ndarray:
    stream: Any = Reader(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that Python 2 wrote
        version = np.lib.format.read_magic(stream)
        parse = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in parse:
            raise ValueError(f"it is of .npy version {version}, not one of {[*parse]}")
        shape, is_fortran, dtype = parse[version](stream)
    return _view(content[stream.tell() :], dtype, shape, "F" if is_fortran else "C")


# What stands in for NumPy's own functions, named as in pickles. Records are filled later, by BUILD.


@dataclasses.dataclass
class _Dtype:
    code: str
    byte_order: str = "="

    def numpy(self) -> np.dtype:
        return np.dtype(self.byte_order + self.code)


@dataclasses.dataclass
class _Array:
    """What an array is made of; only the one that a pickle ends with is made.

    A pickle may name the same text again and again, and its bytes are another copy each time.
    """

    content: Any = None  # bytes, or text
    dtype: Any = None
    shape: Any = None
    order: str = "C"
    axes: tuple[Any, ...] | None = None

    def numpy(self) -> np.ndarray:
        if type(self.dtype) is not _Dtype:
            raise TypeError(f"{type(self.dtype).__name__} in place of a type")
        array = _view(_bytes(self.content), self.dtype.numpy(), self.shape, self.order)
        return array if self.axes is None else array.transpose(self.axes)


def _read_pickle(content: memoryview) -> np.ndarray:
    value = pickled.load(Reader(content), VOCABULARY)
    if type(value) is not _Array or value.content is None:
        raise ValueError("its pickle holds something other than an array")
    return value.numpy()


def _dtype(code: Any, align: Any, copy: Any) -> _Dtype:
    del align, copy
    if type(code) is not str:
        raise TypeError(f"{type(code).__name__} in place of a type's name")
    if not re.fullmatch("[uif][1248]", code):
        raise ValueError(f"its values are of type {code[:20]!r}")
    return _Dtype(code)


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    del shape, code  # of an empty array that is filled later
    if type(kind) is not Name or kind.full != "numpy.ndarray":
        raise TypeError("an array of a type of its own")
    return _Array()


def _frombuffer(content: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> _Array:
    if axes is None and type(order) is str and order in ("C", "F"):
        return _Array(content, dtype, shape, order)
    if order != "K" or type(axes) is not tuple:
        raise TypeError("no order of axes")
    return _Array(content, dtype, shape, "C", axes)


def _encode(text: Any, encoding: Any) -> Any:
    """How protocols 0 to 2 write bytes; they stay text until the array is made."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError("its text is in an encoding other than latin1")
    return text


def _bytes(content: Any) -> Any:
    if type(content) is str:  # of protocols 0 to 2
        return content.encode("latin1")
    if not isinstance(content, bytes | bytearray | memoryview):
        raise TypeError(f"{type(content).__name__} in place of bytes")
    return content


def _build(made: Any, state: Any) -> None:
    if type(made) is _Dtype:
        _, byte_order, *fields = require_tuple(state)
        if byte_order not in ("<", ">", "=", "|") or any(field is not None for field in fields[:3]):
            raise TypeError("a type of several fields")
        made.byte_order = byte_order
    elif type(made) is _Array:
        _, shape, dtype, is_fortran, content = require_tuple(state)
        made.content, made.dtype, made.shape = content, dtype, shape
        made.order = "F" if is_fortran else "C"
    else:
        raise TypeError(f"a state of {type(made).__name__}")


VOCABULARY = Vocabulary(
    calls={
        # NumPy 2 has renamed numpy.core; pickles of either are read by both.
        **{f"numpy.{core}.multiarray._reconstruct": _reconstruct for core in ("core", "_core")},
        **{f"numpy.{core}.numeric._frombuffer": _frombuffer for core in ("core", "_core")},
        "numpy.dtype": _dtype,
        "_codecs.encode": _encode,
    },
    build=_build,
    others=("numpy.ndarray",),
    max_instructions=MAX_INSTRUCTIONS,
)
