"""The size that an image's header states, so that a few bytes cannot claim gigabytes.

OpenCV allocates what a header says, up to 3 GiB, before it looks for the pixels.
"""

import struct
from collections.abc import Callable
from typing import NamedTuple

JPEG_MAGIC, PNG_MAGIC = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
# JPEG's markers without a length, and those of frames, which state the size.
BARE_MARKERS = frozenset((0x01, *range(0xD0, 0xD9)))
FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}

MAX_PIXELS = 1 << 27  # 11,585 x 11,585: 400 MB of colours
# Deflate packs 1,032 bytes into one at most; photographs have a byte for a few pixels.
PIXELS_PER_BYTE = 1024
SMALL_PIXELS = 1 << 22  # as many may be all the same: 12 MB


class Size(NamedTuple):
    """In pixels."""

    width: int
    height: int


def stated(encoded: bytes) -> Size | None:
    """What the header of a JPEG, PNG, WebP or BMP file says; None if it is none of these."""
    for magic, read in HEADERS.items():
        if encoded.startswith(magic):
            try:
                return read(encoded)
            except (struct.error, IndexError, ValueError):  # it ends before
                return None
    return None


def most_pixels(encoded_bytes: int) -> int:
    """How many pixels a file of so many bytes may have."""
    return min(MAX_PIXELS, max(SMALL_PIXELS, PIXELS_PER_BYTE * encoded_bytes))


def _png(encoded: bytes) -> Size:
    return Size(*struct.unpack_from(">II", encoded, 16))


def _jpeg(encoded: bytes) -> Size | None:
    """From the first frame's header, found as libjpeg finds it."""
    place = 2
    while True:
        place = encoded.index(b"\xff", place)
        while encoded[place] == 0xFF:  # any number of fill bytes
            place += 1
        marker = encoded[place]
        place += 1
        if marker in FRAME_MARKERS:
            height, width = struct.unpack_from(">HH", encoded, place + 3)
            return Size(width, height)
        if marker != 0 and marker not in BARE_MARKERS:
            (length,) = struct.unpack_from(">H", encoded, place)
            place += length


def _webp(encoded: bytes) -> Size | None:
    match encoded[8:16]:
        case b"WEBPVP8 ":
            width, height = struct.unpack_from("<HH", encoded, 26)
            return Size(width & 0x3FFF, height & 0x3FFF)
        case b"WEBPVP8L":
            (bits,) = struct.unpack_from("<I", encoded, 21)
            return Size((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
        case b"WEBPVP8X":
            width, height = (int.from_bytes(encoded[k : k + 3], "little") for k in (24, 27))
            return Size(width + 1, height + 1)
    return None


def _bmp(encoded: bytes) -> Size:
    (header_bytes,) = struct.unpack_from("<I", encoded, 14)
    layout = "<HH" if header_bytes == 12 else "<ii"  # a negative height: from the top down
    width, height = struct.unpack_from(layout, encoded, 18)
    return Size(abs(width), abs(height))


HEADERS: dict[bytes, Callable[[bytes], Size | None]] = {
    JPEG_MAGIC: _jpeg,
    PNG_MAGIC: _png,
    b"RIFF": _webp,
    b"BM": _bmp,
}
