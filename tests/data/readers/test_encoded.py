import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from jaxres.data.readers.encoded import EncodedImages, middle
from jaxres.runtime.errors import InputError

RNG = np.random.default_rng(0)


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


@pytest.mark.parametrize("shape", [(40, 64, 3), (64, 40, 3), (41, 40, 3), (40, 40, 3)])
def test_the_middle_is_cut_out_and_stays_as_it_is_at_its_own_size(shape: tuple[int, ...]):
    image = RNG.integers(0, 256, shape, np.uint8)
    top, left = (shape[0] - 40) // 2, (shape[1] - 40) // 2
    np.testing.assert_array_equal(middle(image, 40), image[top : top + 40, left : left + 40])


def test_areas_are_averaged_where_an_image_shrinks():
    image = RNG.integers(0, 256, (40, 50, 3), np.uint8)
    blocks = image[:, 5:45].reshape(10, 4, 10, 4, 3).mean((1, 3))
    assert np.abs(middle(image, 10) - blocks).max() <= 0.5


def test_an_image_grows_bicubically():
    image = RNG.integers(0, 256, (40, 50, 3), np.uint8)
    expected = cv2.resize(image[:, 5:45].copy(), (70, 70), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(middle(image, 70), expected)


def test_images_are_decoded_one_by_one_sliced_or_all_together():
    originals = [RNG.integers(0, 256, (20 + k, 30, 3), np.uint8) for k in range(25)]
    images = EncodedImages([png(image) for image in originals], 16, Path("set"))
    images = pickle.loads(pickle.dumps(images))  # as worker processes get them
    expected = [middle(image, 16) for image in originals]
    np.testing.assert_array_equal(np.asarray(images), expected)
    np.testing.assert_array_equal(images[3], expected[3])
    np.testing.assert_array_equal(np.asarray(images[:2]), expected[:2])
    assert (len(images), len(images[:7]), len(images[:None])) == (25, 7, 25)


def test_a_damaged_image_is_refused_wherever_it_is_read():
    whole = png(RNG.integers(0, 256, (20, 30, 3), np.uint8))
    images = EncodedImages([whole, whole[:100]], 16, Path("folder-of-set"))
    for read in (lambda: images[1], lambda: np.asarray(images)):
        with pytest.raises(InputError, match="folder-of-set is not a whole image"):
            read()
