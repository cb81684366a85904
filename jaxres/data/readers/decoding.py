"""Images out of files: the same pixels for the same image, in whatever file it comes.

That is upright, as the EXIF orientation says, over black where it is transparent (digits are light
on dark), and 8 bits deep.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8, UInt16

from jaxres.data.readers import archives, stated_size
from jaxres.data.readers.stated_size import JPEG_MAGIC, PNG_MAGIC
from jaxres.runtime.errors import InputError
from jaxres.runtime.files import taken_for_the_file

PNG_CHUNK_BYTES = 12  # of length, kind and checksum
PNG_COLOURS = slice(25, 26)  # the byte that says whether they are grey, of a palette, with alpha
ROWS_AT_A_TIME = 256
EXIF, ORIENTATION_TAG = cv2.IMAGE_METADATA_EXIF, 0x0112
START_OF_SCAN, END_OF_IMAGE = 0xDA, b"\xff\xd9"
Scan = tuple[tuple[int, ...], int, int, int]  # components, first and last coefficient, bits missing
# The next marker among a scan's bytes: not a stuffed 0, a restart or a fill byte.
AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def decode_file(encoded: bytes, path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """As `decode_image`, of bytes that nothing has verified: a PNG's checksums are compared."""
    if encoded.startswith(PNG_MAGIC) and not _is_whole_png(encoded):
        raise InputError(f"{path} is not a whole image: it is cut short or damaged")
    return decode_image(encoded, path)


def decode_image(
    encoded: bytes, path: Path, *, grey: bool = False
) -> UInt8[np.ndarray, "h w *rgb"]:
    """The RGB (or grey) image in a file's bytes.

    Args:
        encoded: The whole content of a JPEG, PNG, WebP or BMP file.
        path: Where it was read; named in the error.
        grey: Give one value per pixel, whatever is transparent.
    """
    image = None
    flag = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR_RGB
    size = _checked_size(encoded, path)
    whole = _whole_jpeg(encoded) if size and encoded.startswith(JPEG_MAGIC) else encoded
    if size and whole is not None:
        if not grey and _may_be_transparent(encoded):
            image = _over_black(encoded, path)
        if image is None:
            image = _imdecode(whole, path, flag)
    if image is None and (instead := taken_for_the_file(encoded[:512])):
        raise InputError(f"{path} is not an image: {instead}")
    if image is None:
        raise InputError(
            f"{path} is not a whole image: OpenCV cannot decode its content (allowed: JPEG, PNG, "
            "WebP, BMP)"
        )
    return image


def _checked_size(encoded: bytes, path: Path) -> stated_size.Size | None:
    """What the header states; refuses what so short a file cannot hold."""
    size = stated_size.stated(encoded)
    most = stated_size.most_pixels(len(encoded))
    if size and size.width * size.height > most:
        raise InputError(
            f"{path} states {size.width}x{size.height} pixels in a file of {len(encoded)} bytes; "
            f"allowed for its length: {most} pixels in all"
        )
    return size


def decode_jpeg(encoded: bytes, path: Path, flag: int) -> UInt8[np.ndarray, "h w 3"]:
    """A JPEG reduced to a half, a quarter or an eighth by an OpenCV `flag`, as BGR.

    libjpeg computes no more than these pixels, by averaging.
    """
    _checked_size(encoded, path)
    whole = _whole_jpeg(encoded)
    image = None if whole is None else _imdecode(whole, path, flag)
    if image is None:
        raise InputError(f"{path} is not a whole image: OpenCV cannot decode its content")
    return image


def read_image(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """One image file, RGB."""
    return decode_file(archives.read_bytes(path), path)


def shrink(image: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "new_h new_w 3"]:
    """Shrink uniformly, by averaging areas, to a short side of `side` pixels; never enlarge."""
    height, width = image.shape[:2]
    short_side = min(height, width)
    if short_side <= side:
        return image
    size = (round(width * side / short_side), round(height * side / short_side))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # pyright: ignore[reportReturnType]


def _imdecode(encoded: bytes, path: Path, flag: int) -> Any:
    """OpenCV's image; None where it cannot decode it."""
    try:
        return cv2.imdecode(np.frombuffer(encoded, np.uint8), flag)
    except cv2.error as error:
        raise InputError(f"{path} cannot be decoded as an image: {error.err}") from error


def _may_be_transparent(encoded: bytes) -> bool:
    """Whether the header says that there is alpha, or could be."""
    if encoded.startswith(PNG_MAGIC):
        has_alpha = encoded[PNG_COLOURS] in (b"\x04", b"\x06")
        return has_alpha or b"tRNS" in encoded[: encoded.find(b"IDAT")]
    return not encoded.startswith(JPEG_MAGIC)


def _over_black(encoded: bytes, path: Path) -> UInt8[np.ndarray, "h w 3"] | None:
    """An image that has alpha, over black and upright; None for one that has not."""
    try:
        stored, kinds, metadata = cv2.imdecodeWithMetadata(
            np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED
        )
    except cv2.error as error:
        raise InputError(f"{path} cannot be decoded as an image: {error.err}") from error
    if stored is None or stored.dtype.kind != "u" or stored.shape[2:] != (4,):
        return None
    image = np.empty((*stored.shape[:2], 3), np.uint8)
    for first in range(0, len(stored), ROWS_AT_A_TIME):
        rows = slice(first, first + ROWS_AT_A_TIME)
        image[rows] = _blended(stored[rows])
    exif = [bytes(each) for kind, each in zip(kinds, metadata, strict=True) if kind == EXIF]
    return _upright(image, _orientation(exif[0]) if exif else 1)


def _blended(
    stored: UInt8[np.ndarray, "rows w 4"] | UInt16[np.ndarray, "rows w 4"],
) -> UInt8[np.ndarray, "rows w 3"]:
    """Blue, green, red and alpha as red, green and blue over black."""
    *colours, alpha = np.moveaxis(stored / np.iinfo(stored.dtype).max, -1, 0)
    return np.rint(255 * np.stack(colours[::-1], axis=-1) * alpha[..., None]).astype(np.uint8)


def _orientation(exif: bytes) -> int:
    """1 to 8, as EXIF numbers them; 1, upright, where it does not say."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, start)
        for place in range(start + 2, start + 2 + 12 * entries, 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, place)
            if tag == ORIENTATION_TAG:
                return value
    except struct.error:  # it ends before
        pass
    return 1


def _upright(
    image: UInt8[np.ndarray, "h w 3"], orientation: int
) -> UInt8[np.ndarray, "new_h new_w 3"]:
    if 5 <= orientation <= 8:
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def _png_chunks(encoded: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content, with the checksum at its end, of the chunks that are whole."""
    place = len(PNG_MAGIC)
    while len(encoded) - place >= PNG_CHUNK_BYTES:
        after = place + PNG_CHUNK_BYTES + int.from_bytes(encoded[place : place + 4], "big")
        if after > len(encoded):
            return
        yield encoded[place + 4 : place + 8], encoded[place + 8 : after]
        place = after


def _is_whole_png(encoded: bytes) -> bool:
    """Whether each chunk has its checksum and the last is the end; libpng prints what it misses."""
    for kind, content in _png_chunks(encoded):
        if zlib.crc32(kind + content[:-4]).to_bytes(4, "big") != content[-4:]:
            return False
        if kind == b"IEND":
            return True
    return False


def _whole_jpeg(encoded: bytes) -> bytes | None:
    """A JPEG with its end marker; None if rows are missing, which OpenCV would fill with grey.

    What comes after its end marker, as a phone's video, is not looked at. One without that marker
    may be whole: then no bytes in the marker's place change a pixel.
    """
    scans, ended = _jpeg_scans(encoded)
    if ended:
        return encoded
    if not scans or not _all_coefficients(scans):
        return None
    encoded = encoded.rstrip(b"\xff")  # the marker's first half
    whole, other = (
        cv2.imdecode(np.frombuffer(encoded + tail, np.uint8), cv2.IMREAD_COLOR)
        for tail in (END_OF_IMAGE, 32 * b"\x55\xaa" + END_OF_IMAGE)
    )
    same = whole is not None and other is not None and np.array_equal(whole, other)
    return encoded + END_OF_IMAGE if same else None


def _jpeg_scans(encoded: bytes) -> tuple[list[Scan], bool]:
    """The scans of the first image of a JPEG file, and whether its end marker is there."""
    scans: list[Scan] = []
    place = 2
    while place + 1 < len(encoded):
        marker = encoded[place + 1]
        if encoded[place] != 0xFF or marker == 0xFF:
            place += 1
            continue
        place += 2
        if marker == END_OF_IMAGE[1]:
            return scans, True
        if marker in stated_size.BARE_MARKERS:
            continue
        if place + 2 > len(encoded):
            break
        length = int.from_bytes(encoded[place : place + 2], "big")
        if marker == START_OF_SCAN and place + length <= len(encoded):
            count = encoded[place + 2]
            components = tuple(encoded[place + 3 : place + 3 + 2 * count : 2])
            first, last, bits = encoded[place + length - 3 : place + length]
            scans.append((components, first, last, bits & 0xF))
            found = AFTER_SCAN.search(encoded, place + length)
            place = found.start() if found else len(encoded)
        else:
            place += length
    return scans, False


def _all_coefficients(scans: list[Scan]) -> bool:
    """Whether the scans, several in a progressive JPEG, have every bit of every coefficient."""
    components = {each for scan in scans for each in scan[0]}
    done = {
        (component, coefficient)
        for names, first, last, bits in scans
        if bits == 0
        for component in names
        for coefficient in range(first, last + 1)
    }
    return len(done) == 64 * len(components)
