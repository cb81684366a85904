import struct
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest

from jaxres.data.readers import decoding, stated_size
from jaxres.data.readers.stated_size import Size
from jaxres.runtime.errors import InputError

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 300, 3), np.uint8)


def encoded(suffix: str, *options: int) -> bytes:
    return cv2.imencode(suffix, IMAGE, options)[1].tobytes()


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".png", ()),
        (".jpg", ()),
        (".jpg", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
        (".webp", (cv2.IMWRITE_WEBP_QUALITY, 90)),
        (".webp", (cv2.IMWRITE_WEBP_QUALITY, 101)),
        (".bmp", ()),
    ],
)
def test_headers_state_the_size_that_is_decoded(suffix: str, options: tuple[int, ...]):
    content = encoded(suffix, *options)
    assert stated_size.stated(content) == Size(width=300, height=20)
    assert decoding.decode_image(content, Path("picture")).shape == IMAGE.shape
    for length in range(len(content)):
        assert stated_size.stated(content[:length]) in (None, Size(300, 20))


def test_other_formats_state_nothing():
    assert stated_size.stated(b"P6 60000 60000 255\n") is None
    assert stated_size.stated(b"RIFF" + bytes(100)) is None
    assert stated_size.stated(b"\xff\xd8" + bytes(100)) is None


def with_size(content: bytes, width: int, height: int) -> bytes:
    """An image whose header says another size."""
    if content.startswith(b"BM"):
        return content[:18] + struct.pack("<ii", width, -height) + content[26:]
    place = content.index(b"\xff\xc0") + 5
    return content[:place] + struct.pack(">HH", height, width) + content[place + 4 :]


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_a_size_that_no_content_backs_is_refused_before_it_is_allocated(suffix: str):
    content = with_size(encoded(suffix), 30_000, 30_000)
    tracemalloc.start()
    with pytest.raises(InputError, match="states 30000x30000 pixels in a file of"):
        decoding.decode_image(content, Path("picture"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_large_image_of_one_colour_is_read():
    image = np.full((3000, 5000), 7, np.uint8)
    content = cv2.imencode(".png", image)[1].tobytes()
    assert len(content) < image.size / 200
    read = decoding.decode_image(content, Path("picture"), grey=True)
    np.testing.assert_array_equal(read, image)
