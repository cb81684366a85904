"""IDX files, the format of MNIST and its successors.

Sizes promised by a header are checked against the bytes that are there, and checksums are those of
the decompressed content, since the same file is compressed anew by every mirror.
"""

import hashlib
import io
import math
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jaxres.data.readers.archives import open_unpacked
from jaxres.data.readers.folders import require_folder
from jaxres.runtime.errors import InputError

IDX_UINT8_TYPE = 0x08
# Far above the largest published digit file (47 MB): a crafted one cannot fill the memory.
MAX_IDX_BYTES = 256 << 20
READ_CHUNK_BYTES = 1 << 20


def find_idx(folder: Path, name: str) -> Path:
    """The IDX file `name` in a folder, packed or not, also in the `train-images.idx3` spelling."""
    dotted = name.replace("-idx", ".idx")
    spellings = (f"{name}.gz", name, f"{dotted}.gz", dotted)
    for spelling in spellings:
        if (folder / spelling).is_file():
            return folder / spelling
    require_folder(folder)
    raise InputError(f"no {name} in {folder}: looked for {', '.join(spellings)}")


def read_idx(path: Path, *, md5: str | None = None) -> UInt8[np.ndarray, "..."]:
    """The array in an IDX file of unsigned bytes; whether it is gzipped is known by its content.

    The format: two zero bytes, a type byte, the number of axes, one big-endian 32-bit size per
    axis, then the values (http://yann.lecun.com/exdb/mnist/, "the IDX file format").

    Args:
        path: The file.
        md5: Of the decompressed bytes; None where nobody published it.
    """
    with open_unpacked(path) as file:
        return _parse_idx(file, path, md5)


def _parse_idx(file: io.BufferedIOBase, path: Path, md5: str | None) -> UInt8[np.ndarray, "..."]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or not 1 <= magic[3] <= 4:
        raise InputError(f"{path} is not an IDX file: it begins with {magic!r}")
    if magic[2] != IDX_UINT8_TYPE:
        raise InputError(f"{path} holds IDX type 0x{magic[2]:02x}; allowed: 0x08 (unsigned bytes)")

    sizes = file.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise InputError(f"{path} is truncated: it ends inside its header")
    shape = tuple(np.frombuffer(sizes, ">u4").tolist())
    promised = math.prod(shape)
    # Beside a size of 0 the others promise nothing, but NumPy has no array of such a shape.
    if math.prod(max(size, 1) for size in shape) > MAX_IDX_BYTES:
        raise InputError(
            f"the header of {path} promises {promised} bytes {shape}; allowed: {MAX_IDX_BYTES}"
        )

    # Grows with what the file really holds, never with what its header says.
    values = bytearray()
    while len(values) <= promised:
        chunk = file.read(min(READ_CHUNK_BYTES, promised + 1 - len(values)))
        if not chunk:
            break
        values += chunk
    if len(values) != promised:
        found = "more" if len(values) > promised else f"only {len(values)}"
        raise InputError(f"the header of {path} promises {promised} bytes {shape}, it has {found}")
    digest = hashlib.md5(magic + sizes)
    digest.update(values)
    found_md5 = digest.hexdigest()
    if md5 not in (None, found_md5):
        raise InputError(
            f"{path} is not the published file: its decompressed bytes have md5 {found_md5}, "
            f"expected {md5}"
        )
    return np.frombuffer(values, np.uint8).reshape(shape)
