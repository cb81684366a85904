import gzip
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxres.data.datasets import mnist
from jaxres.data.readers import decoding, folders, idx
from jaxres.runtime.errors import InputError
from tests.data.conftest import idx_bytes, write_photo

ARRAY = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)


def write(path: Path, content: bytes, *, packed: bool = False) -> Path:
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("array", [ARRAY, ARRAY.ravel()])
def test_read_idx_returns_the_array(tmp_path: Path, packed: bool, array: np.ndarray):
    content = idx_bytes(array)
    path = write(tmp_path / "pictures", content, packed=packed)
    np.testing.assert_array_equal(idx.read_idx(path, md5=hashlib.md5(content).hexdigest()), array)


@pytest.mark.parametrize(
    "name",
    [
        "train-images-idx3-ubyte.gz",
        "train-images-idx3-ubyte",
        "train-images.idx3-ubyte.gz",
        "train-images.idx3-ubyte",
    ],
)
def test_find_idx_accepts_every_spelling(tmp_path: Path, name: str):
    write(tmp_path / name, b"")
    assert idx.find_idx(tmp_path, "train-images-idx3-ubyte") == tmp_path / name


def test_find_idx_names_what_is_missing(tmp_path: Path):
    with pytest.raises(InputError, match=r"no t10k-labels-idx1-ubyte in .*looked for"):
        idx.find_idx(tmp_path, "t10k-labels-idx1-ubyte")
    with pytest.raises(InputError, match="does not exist"):
        idx.find_idx(tmp_path / "nowhere", "t10k-labels-idx1-ubyte")
    with pytest.raises(InputError, match="is not a folder"):
        idx.find_idx(write(tmp_path / "file", b""), "t10k-labels-idx1-ubyte")


HUGE_HEADER = bytes([0, 0, 8, 3]) + b"\xff" * 12
# Sizes whose product is below the bound of 256 MiB but far above what is there.
LARGE_HEADER = bytes([0, 0, 8, 1]) + (1 << 27).to_bytes(4, "big")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an IDX file"),
        (b"just some text in a file", "is not an IDX file: it begins with b'just'"),
        (idx_bytes(ARRAY, idx_type=0x0D), "IDX type 0x0d; allowed: 0x08"),
        (idx_bytes(ARRAY)[:9], "ends inside its header"),
        (idx_bytes(ARRAY)[:-1], r"promises 60 bytes \(3, 4, 5\), it has only 59"),
        (idx_bytes(ARRAY) + b"x", "promises 60 bytes .* it has more"),
        (HUGE_HEADER, "allowed: 268435456"),
        (LARGE_HEADER, "it has only 0"),
        (HUGE_HEADER[:-4] + bytes(4), r"promises 0 bytes \(4294967295, 4294967295, 0\)"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_read_idx_refuses(tmp_path: Path, content: bytes, message: str, packed: bool):
    path = write(tmp_path / "pictures.gz", content, packed=packed)
    with pytest.raises(InputError, match=message) as error:
        idx.read_idx(path)
    assert str(path) in str(error.value)


def test_read_idx_refuses_a_truncated_gzip_file(tmp_path: Path):
    packed = gzip.compress(idx_bytes(np.random.default_rng(0).integers(0, 256, 5000, np.uint8)))
    for length in (3, 100, len(packed) // 2, len(packed) - 1):
        path = write(tmp_path / "labels.gz", packed[:length])
        with pytest.raises(InputError, match="is truncated or damaged"):
            idx.read_idx(path)


def test_read_idx_stops_unpacking_where_the_header_says(tmp_path: Path):
    bomb = bytes([0, 0, 8, 1]) + (10).to_bytes(4, "big") + bytes(50_000_000)
    path = write(tmp_path / "labels.gz", bomb, packed=True)
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match=r"promises 10 bytes .* it has more"):
        idx.read_idx(path)


def test_read_idx_refuses_a_changed_file(tmp_path: Path):
    expected = hashlib.md5(idx_bytes(ARRAY)).hexdigest()
    path = write(tmp_path / "pictures.gz", idx_bytes(ARRAY + 1), packed=True)
    found = hashlib.md5(idx_bytes(ARRAY + 1)).hexdigest()
    with pytest.raises(InputError, match=f"md5 {found}, expected {expected}"):
        idx.read_idx(path, md5=expected)


def test_read_idx_refuses_what_cannot_be_opened(tmp_path: Path):
    with pytest.raises(InputError, match=r"cannot read .*No such file"):
        idx.read_idx(tmp_path / "absent")
    with pytest.raises(InputError, match=r"cannot read .*Is a directory"):
        idx.read_idx(tmp_path)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_real_files_match_their_published_checksums(original: Callable[[str], Path], name: str):
    folder = original(name)
    for key, file in mnist.PUBLISHED[name].files.items():
        array = idx.read_idx(idx.find_idx(folder, file.name), md5=file.md5)
        count = 60_000 if key.startswith("train") else 10_000
        assert array.shape == ((count, 28, 28) if key.endswith("images") else (count,))
        if key.endswith("labels"):
            assert set(np.unique(array)) == set(range(10))


def test_find_images_walks_a_tree(photos_dir: Path):
    (photos_dir / "train" / "._a.jpg").write_bytes(b"what a Mac leaves beside a.jpg")
    (photos_dir / "notes.txt").write_text("not an image")
    names = [str(path.relative_to(photos_dir)) for path in folders.find_images(photos_dir)]
    assert names == sorted(names)
    assert len(names) == 8
    assert {"train/b.PNG", "train/sub/c.webp"} < set(names)


def test_find_images_refuses_a_folder_without_any(tmp_path: Path):
    with pytest.raises(InputError, match=r"no images in .*\.jpg, \.jpeg, \.jpe, \.jfif, \.png"):
        folders.find_images(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        folders.find_images(tmp_path / "absent")


def test_read_image_is_rgb(tmp_path: Path):
    red_in_opencv_order = np.zeros((40, 50, 3), np.uint8)
    red_in_opencv_order[..., 2] = 200
    cv2.imwrite(str(tmp_path / "red.png"), red_in_opencv_order)
    image = decoding.read_image(tmp_path / "red.png")
    assert image.shape == (40, 50, 3)
    assert image[0, 0].tolist() == [200, 0, 0]


def test_read_image_makes_grey_and_16_bit_images_rgb(tmp_path: Path):
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((40, 50), 7, np.uint8))
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((40, 50), 7 * 257, np.uint16))
    for name in ("grey.png", "deep.png"):
        image = decoding.read_image(tmp_path / name)
        assert image.shape == (40, 50, 3)
        assert image.dtype == np.uint8
        assert (image == 7).all()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95])
def test_read_image_refuses_a_cut_file(tmp_path: Path, suffix: str, share: float):
    path = write_photo(tmp_path / f"photo{suffix}", 0)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match="is not a whole image") as error:
        decoding.read_image(path)
    assert str(path) in str(error.value)


def test_read_image_refuses_a_text_file(tmp_path: Path):
    path = write(tmp_path / "photo.jpg", b"this is not an image at all\n" * 20)
    with pytest.raises(InputError, match=r"photo\.jpg is not a whole image"):
        decoding.read_image(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_is_transparent_lies_over_black(tmp_path: Path, dtype: type):
    most = np.iinfo(dtype).max
    blue_green_red_alpha = np.array([[most, 0, most, most], [most, 0, most, 0]], dtype)
    half = np.array([0, most, most, most // 2], dtype)
    path = tmp_path / "picture.png"
    cv2.imwrite(str(path), np.stack([*blue_green_red_alpha, half])[None])
    image = decoding.decode_file(path.read_bytes(), path)
    assert image.tolist() == [[[255, 0, 255], [0, 0, 0], [127, 127, 0]]]


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_png_with_changed_bytes_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
):
    path = tmp_path_factory.getbasetemp() / "changed.png"
    content = write_photo(path, 0, height=4, width=4).read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    changed = content[:place] + bytes([content[place] ^ data.draw(st.integers(1, 255))])
    with pytest.raises(InputError, match=rf"{path} "):
        decoding.decode_file(changed + content[place + 1 :], path)
    with pytest.raises(InputError, match=r"is not a whole image"):
        decoding.decode_file(content[:place], path)


@pytest.mark.parametrize(
    ("shape", "shrunk"),
    [((100, 150), (40, 60)), ((150, 100), (60, 40)), ((40, 90), (40, 90)), ((20, 30), (20, 30))],
)
def test_shrink_is_uniform_and_never_enlarges(shape: tuple[int, int], shrunk: tuple[int, int]):
    image = np.full((*shape, 3), 9, np.uint8)
    result = decoding.shrink(image, 40)
    assert result.shape == (*shrunk, 3)
    assert (result == 9).all()


def test_pipes_and_devices_are_no_images(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "endless.jpg").symlink_to("/dev/zero")
    for name in ("pipe.jpg", "endless.jpg"):
        with pytest.raises(InputError, match=f"{name}: it is not a regular file"):
            decoding.read_image(tmp_path / name)
