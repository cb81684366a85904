import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxres.config import DataConfig
from jaxres.data.compose import render_device, render_host
from jaxres.data.compose.composition import Plan, Resident
from jaxres.data.compose.plain import Plain
from jaxres.data.compose.scale_blend import ScaleBlend, ScaleBlendPlan
from tests.marked import slow

CANVAS = 64
RNG = np.random.default_rng(0)
PHOTOS = RNG.integers(0, 256, (5, 80, 80, 3), np.uint8)
DIGITS = {
    # Noise has every step there is; a stroke has the flat ground of real digits.
    28: np.concatenate(
        [
            RNG.integers(0, 256, (20, 28, 28), np.uint8),
            np.where(RNG.random((20, 28, 28)) < 0.2, 255, 0).astype(np.uint8),
        ]
    ),
    8: RNG.integers(0, 256, (40, 8, 8), np.uint8),
}
_render = jax.jit(render_device.render, static_argnames="data")


def both(
    plan: Plan, digits: np.ndarray, canvas: int = CANVAS, photos: np.ndarray = PHOTOS
) -> tuple[np.ndarray, np.ndarray]:
    resident = Resident(digits, photos)
    data = DataConfig(canvas=canvas, composition="plain")  # what else it says is in the plan
    host = render_host.render(plan, None, resident, data=data)
    return host, np.asarray(_render(plan, None, resident, data=data))


@st.composite
def plans(draw: st.DrawFn) -> ScaleBlendPlan:
    n = 16

    def each(low: int, high: int) -> np.ndarray:
        values = st.lists(st.integers(low, high), min_size=n, max_size=n)
        return np.array(draw(values), np.int32)

    side = each(8, CANVAS)
    room = CANVAS - side + 1
    # 0 and the last place put the digit's square on the border.
    corner = np.stack([each(0, 2**20) % room, each(0, 2**20) % room], axis=1).astype(np.int32)
    opacity = st.floats(0, 1, width=32)
    return ScaleBlendPlan(
        digit=each(0, 39),
        photo=each(0, 4),
        crop=np.stack([each(0, 16), each(0, 16)], axis=1),
        side=side,
        corner=corner,
        opacity=np.array(draw(st.lists(opacity, min_size=n, max_size=n)), np.float32),
    )


@pytest.mark.parametrize("size", [28, slow(8)])
@settings(deadline=None, max_examples=150)
@given(plan=plans())
def test_the_renderers_agree_within_one_grey_level(size: int, plan: Plan) -> None:
    host, device = both(plan, DIGITS[size])
    assert np.abs(host.astype(int) - device).max() <= 1


@pytest.mark.parametrize("side", [8, 27, 28, 29, 56, 63, 64])
@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_they_agree_at_every_border_and_size(side: int, place: float) -> None:
    n = len(DIGITS[28])
    plan = ScaleBlendPlan(
        digit=np.arange(n, dtype=np.int32),
        photo=np.zeros(n, np.int32),
        crop=np.full((n, 2), 16, np.int32),
        side=np.full(n, side, np.int32),
        corner=np.full((n, 2), round(place * (CANVAS - side)), np.int32),
        opacity=np.full(n, 0.5, np.float32),
    )
    host, device = both(plan, DIGITS[28])
    difference = np.abs(host.astype(int) - device)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3  # a level here and there, not a shift


def test_a_full_sized_canvas_agrees_too() -> None:
    photos = RNG.integers(0, 256, (2, 256, 256, 3), np.uint8)
    compose = ScaleBlend(224, tuple(range(28, 225, 14)), "random", 0.5, 2, 256)
    digits = np.arange(32, dtype=np.int32)
    plan = compose.draw(digits, seed=0, stream="train", epoch=0, first=0)
    host, device = both(plan, DIGITS[28], 224, photos)
    assert np.abs(host.astype(int) - device).max() <= 1


def test_outside_the_digit_the_photograph_is_untouched_and_opacity_mixes() -> None:
    digits = np.full((1, 28, 28), 200, np.uint8)
    plan = ScaleBlendPlan(
        digit=np.zeros(1, np.int32),
        photo=np.ones(1, np.int32),
        crop=np.array([[3, 5]], np.int32),
        side=np.array([20], np.int32),
        corner=np.array([[10, 30]], np.int32),
        opacity=np.array([0.25], np.float32),
    )
    photo = PHOTOS[1, 3 : 3 + CANVAS, 5 : 5 + CANVAS]
    expected = photo.copy()
    square = photo[10:30, 30:50].astype(np.float64)
    expected[10:30, 30:50] = np.round(0.75 * square + 0.25 * 200)
    for image in both(plan, digits):
        np.testing.assert_array_equal(image[0], expected)


IMAGES = {
    "grey": RNG.integers(0, 256, (40, 36, 36), np.uint8),
    "rgb": RNG.integers(0, 256, (40, 36, 36, 3), np.uint8),
}


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("canvas", [28, 35, 36, 37, 72, 224])
@settings(deadline=None, max_examples=20)
@given(chosen=st.lists(st.integers(0, 39), min_size=8, max_size=8))
def test_plain_images_agree_within_one_grey_level(
    kind: str, canvas: int, chosen: list[int]
) -> None:
    examples = np.array(chosen, np.int32)
    plan = Plain(canvas).draw(examples, seed=0, stream="train", epoch=0, first=0)
    host, device = both(plan, IMAGES[kind], canvas)
    assert host.shape == device.shape == (8, canvas, canvas, 3)
    assert np.abs(host.astype(int) - device).max() <= 1
    if canvas == 36:
        own = IMAGES[kind][examples]
        expected = own if kind == "rgb" else np.repeat(own[..., None], 3, axis=-1)
        np.testing.assert_array_equal(host, expected)
        np.testing.assert_array_equal(device, expected)
