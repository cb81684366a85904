import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from jaxres.image.resize import resize
from tests.marked import slow

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("size", [(24, 56), slow((40, 40)), slow((56, 24))])
@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("side", [8, slow(39), slow(40), 41, slow(100)])
def test_resize_is_opencvs_within_one_level(size, channels, side):
    images = RNG.integers(0, 256, (8, *size, *channels), np.uint8)
    theirs = [cv2.resize(each, (side, side), interpolation=cv2.INTER_CUBIC) for each in images]
    ours = np.asarray(resize(jnp.asarray(images), side=side))
    difference = np.abs(ours.astype(int) - theirs)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


@pytest.mark.parametrize("channels", [(), (3,)])
def test_an_image_of_the_size_asked_for_is_left_as_it_is(channels):
    images = jnp.asarray(RNG.integers(0, 256, (2, 32, 32, *channels), np.uint8))
    assert resize(images, side=32) is images
