"""The same pixels for the same image, in whatever file it comes."""

import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from jaxres.data.readers import decoding
from jaxres.runtime.errors import InputError

ORIENTATIONS = range(1, 9)


def exif(orientation: int, order: str) -> np.ndarray:
    """An EXIF block that states an orientation and something before it, in either byte order."""

    def number(value: int, size: int) -> bytes:
        return value.to_bytes(size, "big" if order == "MM" else "little")

    def entry(tag: int, value: int) -> bytes:
        return number(tag, 2) + number(3, 2) + number(1, 4) + number(value, 2) + b"\0\0"

    head = order.encode() + number(42, 2) + number(8, 4) + number(2, 2)
    block = head + entry(0x0103, 6) + entry(0x0112, orientation) + number(0, 4)
    return np.frombuffer(block, np.uint8)


def photo() -> np.ndarray:
    """No side of it is like another: blue, green, red."""
    rows, columns = np.mgrid[0:20, 0:28]
    return np.stack([9 * columns, 12 * rows, 4 * rows + 5 * columns], -1).astype(np.uint8)


def encoded(suffix: str, image: np.ndarray, block: np.ndarray | None = None) -> bytes:
    lossless = [cv2.IMWRITE_WEBP_QUALITY, 101] if suffix == ".webp" else []
    if block is None:
        return cv2.imencode(suffix, image, lossless)[1].tobytes()
    kinds = [cv2.IMAGE_METADATA_EXIF]
    return cv2.imencodeWithMetadata(suffix, image, kinds, [block], lossless)[1].tobytes()


def with_alpha(image: np.ndarray) -> np.ndarray:
    return np.concatenate([image, np.full_like(image[..., :1], np.iinfo(image.dtype).max)], 2)


@pytest.mark.parametrize(
    ("suffix", "order", "orientation"),
    [*itertools.product([".png", ".webp"], ["II", "MM"], ORIENTATIONS)],
)
def test_alpha_does_not_turn_an_image(suffix: str, order: str, orientation: int) -> None:
    block = exif(orientation, order)
    path = Path("picture")
    opaque = decoding.decode_file(encoded(suffix, photo(), block), path)
    ours = decoding.decode_file(encoded(suffix, with_alpha(photo()), block), path)
    np.testing.assert_array_equal(ours, opaque)
    assert opaque.shape == ((28, 20, 3) if orientation > 4 else (20, 28, 3))


def test_an_image_is_the_same_in_every_lossless_file() -> None:
    deep = photo().astype(np.uint16) * 257
    files = [
        encoded(".png", photo()),
        encoded(".png", with_alpha(photo())),
        encoded(".png", deep),
        encoded(".png", with_alpha(deep)),
        encoded(".webp", photo()),
        encoded(".webp", with_alpha(photo())),
        encoded(".bmp", photo()),
        encoded(".bmp", with_alpha(photo())),
    ]
    for file in files:
        for decode in (decoding.decode_file, decoding.decode_image):
            np.testing.assert_array_equal(decode(file, Path("picture")), photo()[..., ::-1])


@pytest.mark.parametrize("block", [b"", b"II*\0", b"XX*\0\0\0\0\x08", b"MM\0*\0\0\xff\xff"])
def test_exif_that_says_nothing_leaves_an_image_as_it_is(block: bytes) -> None:
    assert decoding._orientation(block) == 1


def jpeg(*, progressive: bool = False) -> bytes:
    rng = np.random.default_rng(0)
    rough = cv2.resize(rng.integers(0, 256, (12, 15, 3), dtype=np.uint8), (150, 120))
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)]
    return cv2.imencode(".jpg", rough, options)[1].tobytes()


def pixels(content: bytes) -> Any:
    return decoding.decode_file(content, Path("picture"))


@pytest.mark.parametrize("progressive", [False, True])
def test_what_follows_a_jpegs_end_is_not_its_image(progressive: bool) -> None:
    whole = jpeg(progressive=progressive)
    video = b"\0\0\0\x18ftypmp42" + b"\xff\xda\0\x08\x01" + bytes(1000)
    for after in (video, whole, b"\0" * 7, b"\xff\xd9"):
        np.testing.assert_array_equal(pixels(whole + after), pixels(whole))


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_end_marker_is_whole_if_its_rows_are(progressive: bool) -> None:
    whole = jpeg(progressive=progressive)
    assert whole.endswith(b"\xff\xd9")
    for cut in (1, 2):
        np.testing.assert_array_equal(pixels(whole[:-cut]), pixels(whole))
    for share in (0.3, 0.6, 0.9, 0.99):
        with pytest.raises(InputError, match="is not a whole image"):
            pixels(whole[: int(len(whole) * share)])


def test_a_progressive_jpeg_that_ends_between_two_scans_is_cut() -> None:
    whole = jpeg(progressive=True)
    starts = [place for place in range(len(whole)) if whole[place : place + 2] == b"\xff\xda"]
    assert len(starts) > 4
    for place in starts[1:]:
        tables = whole.rfind(b"\xff\xc4", 0, place)  # the scan's own
        for end in (place, max(tables, starts[0] + 1)):
            with pytest.raises(InputError, match="is not a whole image"):
                pixels(whole[:end])


@pytest.mark.parametrize("name", ["a.jfif", "b.JPE", "c.jpeg", "d.Jpg"])
def test_every_name_of_a_jpeg_is_found(tmp_path: Path, name: str) -> None:
    from jaxres.data.readers.folders import find_images

    (tmp_path / name).write_bytes(jpeg())
    assert find_images(tmp_path) == [tmp_path / name]
