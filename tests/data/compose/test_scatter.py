import numpy as np
import pytest

from jaxres.config import DataConfig
from jaxres.data.compose import render_host
from jaxres.data.compose.composition import Resident
from jaxres.data.compose.digits import Digits, patch_side
from jaxres.data.compose.scatter import Scatter
from jaxres.runtime.errors import InputError

RNG = np.random.default_rng(0)
CANVAS = 64


def drawn_digits(count: int = 40, side: int = 28) -> tuple[np.ndarray, np.ndarray]:
    """Images with ink in a box somewhere, of ten classes in turn."""
    images = np.zeros((count, side, side), np.uint8)
    for image in images:
        top, left = RNG.integers(0, side // 3, 2)
        height, width = RNG.integers(side // 3, side - side // 3, 2)
        image[top : top + height, left : left + width] = RNG.integers(150, 256, (height, width))
    return images, np.arange(count, dtype=np.int32) % 10


IMAGES, LABELS = drawn_digits()


def scatter(**changed) -> Scatter:
    digits = Digits.of(IMAGES, LABELS)
    options = {
        "canvas": CANVAS,
        "digits": (3,),
        "target": "largest_value",
        "scale": (0.5, 0.8),
        "rotation": 45.0,
        "source": digits,
        "textures": 5,
        "texture_side": 2 * CANVAS,
        "patch": patch_side(digits, (0.5, 0.8), stretch=1.0),
        **changed,
    }
    return Scatter(**options)


def plan_of(compose: Scatter, n: int, *, first: int = 0, epoch: int = 0):
    examples = np.arange(first, first + n, dtype=np.int32)
    return compose.draw(examples, seed=3, stream="train", epoch=epoch, first=first)


def test_any_slice_of_an_epoch_is_drawn_by_itself():
    for whole, part in zip(plan_of(scatter(), 50), plan_of(scatter(), 9, first=30), strict=True):
        np.testing.assert_array_equal(whole[30:39], part)
    assert (plan_of(scatter(), 50).digit != plan_of(scatter(), 50, epoch=1).digit).any()


def test_every_class_is_as_likely_whatever_its_share_of_the_source():
    labels = np.r_[np.zeros(31), np.arange(1, 10)].astype(np.int32)
    compose = scatter(source=Digits.of(IMAGES, labels))
    shares = np.bincount(labels[plan_of(compose, 10_000).digit].ravel()) / 30_000
    assert np.abs(shares - 0.1).max() < 4 * np.sqrt(0.09 / 30_000)


@pytest.mark.parametrize("target", ["largest_value", "count", "sum"])
def test_the_label_is_what_the_image_shows(target):
    compose = scatter(digits=(1, 3, 4), target=target)
    plan = plan_of(compose, 200)
    assert set(plan.present.sum(1)) == {1, 3, 4}
    for digits, present, label in zip(plan.digit, plan.present, compose.labels(plan), strict=True):
        values = LABELS[digits[present]].tolist()
        assert (
            label
            == {"largest_value": max(values), "count": len(values), "sum": sum(values)}[target]
        )
    assert len(compose.class_names(())) == {"largest_value": 10, "count": 5, "sum": 37}[target]


def test_digits_are_whole_on_the_canvas_and_inside_their_patch():
    compose = scatter()
    plan = plan_of(compose, 2_000)
    low, high = compose.spans(plan.digit, plan.to_digit)
    assert (np.maximum(low, 0) >= plan.corner).all()
    assert (np.minimum(high, CANVAS - 1) <= plan.corner + compose.patch - 1).all()
    # The spans reach a pixel of the source, and rounding, further than the ink.
    assert low.min() > -2
    assert high.max() < CANVAS + 1
    # A wider patch shows no more of them.
    plan = plan._replace(tone=np.zeros_like(plan.tone))
    wide = scatter(patch=3 * CANVAS)
    shown = [
        render_host.render(
            plan._replace(corner=each.corners(plan.digit, plan.to_digit)),
            None,
            Resident(IMAGES, np.zeros((5, 128, 128), np.uint8), each.patch),
            data=DataConfig(canvas=CANVAS, composition="plain"),
        )
        for each in (compose, wide)
    ]
    assert np.abs(shown[0].astype(int) - shown[1]).max() <= 1


def test_most_digits_keep_apart():
    plan = plan_of(scatter(canvas=128), 2_000)
    low, high = scatter(canvas=128).spans(plan.digit, plan.to_digit)
    overlaps = 0
    for a, b in ((0, 1), (0, 2), (1, 2)):
        overlaps += ((low[:, a] < high[:, b] - 3) & (low[:, b] < high[:, a] - 3)).all(1).sum()
    assert 0 < overlaps < 0.15 * 2_000


def test_a_source_without_ink_or_without_a_class_is_refused():
    with pytest.raises(InputError, match="an image without ink"):
        Digits.of(np.zeros((10, 8, 8), np.uint8), np.arange(10, dtype=np.int32))
    with pytest.raises(InputError, match="no example of 3"):
        Digits.of(IMAGES[:5], np.array([0, 1, 2, 4, 4], np.int32))
