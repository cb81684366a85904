"""Image files: those that `jaxres predict` reads, folders of photographs, flowers' archive."""

import contextlib
import functools
import gzip
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
from hypothesis import strategies as st

from jaxres.data import prepare
from jaxres.data.datasets import flowers
from jaxres.data.readers import archives, decoding, encoded, stated_size
from tests.faults.fuzz.damage import damaged, damaged_tree
from tests.faults.fuzz.inputs.cifar import archive_of
from tests.faults.fuzz.reader import Reader, fingerprint
from tests.faults.fuzz.trees import Tree

SIDES = (0, 1, 3, 255, 4096, 16383, 30_000, 65_535, 2**31 - 1)


@functools.cache
def image(
    suffix: str, seed: int = 0, height: int = 36, width: int = 40, channels: int = 3
) -> bytes:
    """A small smooth image in the format of a suffix."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, channels), dtype=np.uint8)
    written, content = cv2.imencode(suffix, cv2.resize(coarse, (width, height)))
    assert written
    return content.tobytes()


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content).to_bytes(4, "big")
    return len(content).to_bytes(4, "big") + kind + content + checksum


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG with right checksums, whatever its header promises."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    return stated_size.PNG_MAGIC + chunks


def _with_size(content: bytes, width: int, height: int) -> bytes:
    """A valid image whose header says another size."""
    if content.startswith(stated_size.PNG_MAGIC):
        return png(width, height, 8, 2, bytes(1000))
    if content.startswith(b"BM"):
        signed = width & 0xFFFFFFFF, (height if height % 2 else -height) & 0xFFFFFFFF
        return content[:18] + struct.pack("<II", *signed) + content[26:]
    if content.startswith(b"RIFF"):
        if content[12:16] == b"VP8L":
            bits = (width - 1 & 0x3FFF) | (height - 1 & 0x3FFF) << 14
            return content[:21] + struct.pack("<I", bits) + content[25:]
        return content[:26] + struct.pack("<HH", width & 0x3FFF, height & 0x3FFF) + content[30:]
    place = max(content.find(b"\xff\xc0"), content.find(b"\xff\xc2"))
    return (
        content[: place + 5]
        + struct.pack(">HH", height & 0xFFFF, width & 0xFFFF)
        + content[place + 9 :]
    )


OTHER_FORMATS = (
    b"P6 60000 60000 255\n" + bytes(100),
    b"P5\n3 3\n255\n" + bytes(9),
    b"GIF89a" + struct.pack("<HH", 60000, 60000) + b"\x80\0\0" + bytes(40),
    b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 60000 +X 60000\n" + bytes(40),
    b"II*\0\x08\0\0\0" + bytes(100),
    b"\0\0\0\x20ftypavif" + bytes(60),
)


def files() -> st.SearchStrategy[bytes]:
    """Damaged images of the five formats, sizes that no content backs, other formats."""
    valid = [image(suffix) for suffix in (".png", ".jpg", ".webp", ".bmp")]
    valid += [image(".png", channels=4), image(".png", channels=1)]
    sizes = st.tuples(st.sampled_from(valid), st.sampled_from(SIDES), st.sampled_from(SIDES))
    made = st.builds(
        png,
        st.sampled_from(SIDES[:-1]),
        st.sampled_from(SIDES[:-1]),
        st.sampled_from((1, 2, 8, 16, 3)),
        st.sampled_from((0, 2, 3, 4, 6, 5)),
        st.sampled_from((0, 100, 2**20)).map(bytes),
    )
    return st.one_of(
        *(damaged(content, valid) for content in valid),
        sizes.map(lambda drawn: _with_size(*drawn)),
        made,
        st.sampled_from(OTHER_FORMATS),
    )


@contextlib.contextmanager
def predicted(scratch: Path) -> Iterator[Reader]:
    """A file as `jaxres predict` reads it, squared and not; PNG has checksums."""
    del scratch

    def read(source: Path, output: Path) -> Any:
        path = source / "picture"
        encoded.ImageFiles([path], 32)[0]
        return encoded.ImageFiles([path], None)[0]

    valid = [image(".png"), image(".png", channels=4), image(".png", channels=1)]
    known = {fingerprint(decoding.decode_file(c, Path("valid"))) for c in valid}

    def wrong(tree: Tree, content: np.ndarray) -> str | None:
        if content.dtype != np.uint8 or content.ndim != 3 or 0 in content.shape:
            return f"an image of type {content.dtype} and shape {content.shape}"
        given = tree["picture"]
        assert isinstance(given, bytes)
        # Of the valid files' size: the made ones are right as they are.
        is_png = given.startswith(stated_size.PNG_MAGIC) and content.shape == (36, 40, 3)
        return "a PNG changed unnoticed" if is_png and fingerprint(content) not in known else None

    yield Reader(files().map(lambda content: {"picture": content}), read, wrong)


def _photographs() -> dict[str, bytes]:
    suffixes = {"a.png": ".png", "b.jpg": ".jpg", "c.webp": ".webp", "d.bmp": ".bmp"}
    return {
        f"{split}/{name}": image(suffix, seed)
        for seed, split in enumerate(("train", "val", "test"))
        for name, suffix in suffixes.items()
    }


@contextlib.contextmanager
def photographs(scratch: Path) -> Iterator[Reader]:
    """`jaxres data prepare photos --from DIR`."""
    del scratch
    valid = _photographs()

    def with_one(drawn: tuple[str, bytes]) -> Tree:
        return {**valid, drawn[0]: drawn[1]}

    one = st.tuples(st.sampled_from(sorted(valid)), files()).map(with_one)

    def read(source: Path, output: Path) -> Path:
        return prepare.prepare("photos", from_dir=source, data_dir=output, progress=False)

    yield Reader(st.one_of(damaged_tree(valid), one), read)


def _member(kind: bytes, size: int, *, holes: int = 0) -> bytes:
    """The header of a member in a tar archive, of GNU's kinds."""
    header = bytearray(512)
    name = b"roses/1.jpg"
    header[: len(name)] = name
    header[124:136] = b"%011o\0" % size
    header[156:157] = kind
    header[257:265] = b"ustar  \0"
    if holes:  # one of no bytes at the end, and the size with holes
        header[386:398] = b"%011o\0" % (holes % 8**11)
        header[483:495] = b"\x80" + (holes).to_bytes(11, "big")
    checksum = sum(header[:148]) + 8 * 32 + sum(header[156:])
    header[148:156] = b"%06o\0 " % checksum
    return bytes(header)


@contextlib.contextmanager
def flower_folders(scratch: Path) -> Iterator[Reader]:
    """`jaxres data prepare flowers --from DIR --partial`: class folders, or the archive."""
    del scratch
    valid = {f"{name}/1.jpg": image(".jpg", k) for k, name in enumerate(flowers.PUBLISHED)}
    plain = archive_of({f"{flowers.FOLDER}/{name}": valid[name] for name in valid}, "w:")
    bomb = archive_of({f"{flowers.FOLDER}/roses/{k}.jpg": bytes(16 << 20) for k in range(6)}, "w:")
    zeros = bytes(80 << 20)
    long_name = _member(b"L", len(zeros)) + zeros
    sparse = _member(b"S", 0, holes=2**40)
    packed_ones = st.one_of(
        st.sampled_from((gzip.compress(bomb, 1), gzip.compress(long_name, 1), sparse)),
        damaged(gzip.compress(plain, mtime=0), (plain,)),
        damaged(plain),
        damaged(plain).map(functools.partial(gzip.compress, compresslevel=1, mtime=0)),
    )

    def read(source: Path, output: Path) -> Path:
        return prepare.prepare(
            "flowers", from_dir=source, data_dir=output, progress=False, partial=True
        )

    packed = packed_ones.map(lambda content: {flowers.ARCHIVE: content})
    with mock.patch.object(archives, "MAX_ARCHIVE_BYTES", 64 << 20):
        yield Reader(st.one_of(damaged_tree(valid), packed), read)
