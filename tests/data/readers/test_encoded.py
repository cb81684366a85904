import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from jaxres.data.readers.encoded import EncodedPictures, middle
from jaxres.runtime.errors import InputError

RNG = np.random.default_rng(0)


def png(picture: np.ndarray) -> bytes:
    return cv2.imencode(".png", picture[..., ::-1])[1].tobytes()


@pytest.mark.parametrize("shape", [(40, 64, 3), (64, 40, 3), (41, 40, 3), (40, 40, 3)])
def test_the_middle_is_cut_out_and_stays_as_it_is_at_its_own_size(shape: tuple[int, ...]):
    picture = RNG.integers(0, 256, shape, np.uint8)
    top, left = (shape[0] - 40) // 2, (shape[1] - 40) // 2
    np.testing.assert_array_equal(middle(picture, 40), picture[top : top + 40, left : left + 40])


def test_areas_are_averaged_where_a_picture_shrinks():
    picture = RNG.integers(0, 256, (40, 50, 3), np.uint8)
    blocks = picture[:, 5:45].reshape(10, 4, 10, 4, 3).mean((1, 3))
    assert np.abs(middle(picture, 10) - blocks).max() <= 0.5


def test_a_picture_grows_bicubically():
    picture = RNG.integers(0, 256, (40, 50, 3), np.uint8)
    expected = cv2.resize(picture[:, 5:45].copy(), (70, 70), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(middle(picture, 70), expected)


def test_pictures_are_decoded_one_by_one_sliced_or_all_together():
    originals = [RNG.integers(0, 256, (20 + k, 30, 3), np.uint8) for k in range(25)]
    pictures = EncodedPictures([png(picture) for picture in originals], 16, Path("set"))
    pictures = pickle.loads(pickle.dumps(pictures))  # as worker processes get them
    expected = [middle(picture, 16) for picture in originals]
    np.testing.assert_array_equal(np.asarray(pictures), expected)
    np.testing.assert_array_equal(pictures[3], expected[3])
    np.testing.assert_array_equal(np.asarray(pictures[:2]), expected[:2])
    assert (len(pictures), len(pictures[:7]), len(pictures[:None])) == (25, 7, 25)


def test_a_damaged_picture_is_refused_wherever_it_is_read():
    whole = png(RNG.integers(0, 256, (20, 30, 3), np.uint8))
    pictures = EncodedPictures([whole, whole[:100]], 16, Path("folder-of-set"))
    for read in (lambda: pictures[1], lambda: np.asarray(pictures)):
        with pytest.raises(InputError, match="folder-of-set is not a whole picture"):
            read()
