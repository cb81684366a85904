"""Augmentations by themselves, and that both renderers do them alike with every composition."""

import dataclasses
import functools
import zlib
from typing import Any

import jax
import numpy as np
import pytest

from jaxres.config import AugmentConfig, Augmenting, DataConfig
from jaxres.data.augment import Augment
from jaxres.data.compose import render_device, render_host
from jaxres.data.compose.composition import Resident
from jaxres.data.compose.digits import Digits, patch_side
from jaxres.data.compose.plain import Plain
from jaxres.data.compose.scale_blend import ScaleBlend
from jaxres.data.compose.scatter import Scatter
from tests.data.compose.test_scatter import IMAGES, LABELS
from tests.marked import slow

SIDE = 32
EACH = {
    "rotate": 25.0,
    "zoom": (0.7, 1.4),
    "squish": (0.7, 1.4),
    "perspective": 0.15,
    "tilt": 0.15,
    "skew": 0.15,
    "crop_padding": 4,
    "flip": True,
    "jitter": 1.5,
    "lighting": 0.2,
    "contrast": (0.6, 1.5),
    "saturation": (0.2, 2.0),
    "erase": 0.5,
}
KINDS = {key: AugmentConfig(**{key: value}).resolved() for key, value in EACH.items()}
KINDS["digits"] = AugmentConfig(policy="digits").resolved()
KINDS["natural"] = AugmentConfig(policy="natural").resolved()
KINDS["all"] = AugmentConfig(**EACH, share=0.8).resolved()


def augmentation(ranges: Augmenting, n: int, *, side: int = SIDE, first: int = 0) -> Any:
    return Augment(ranges, side).draw(n, seed=5, epoch=2, first=first)


@pytest.mark.parametrize("kind", KINDS)
def test_any_slice_is_drawn_by_itself(kind):
    whole, part = augmentation(KINDS[kind], 40), augmentation(KINDS[kind], 10, first=25)
    assert any(field is not None for field in whole)
    for field, slice_ in zip(whole, part, strict=True):
        if field is not None:
            np.testing.assert_array_equal(field[25:35], slice_)


def test_what_is_not_asked_for_is_not_drawn():
    assert augmentation(KINDS["lighting"], 3).matrix is None
    assert augmentation(KINDS["rotate"], 3)[1:] == (None,) * 5
    assert not AugmentConfig().resolved().active
    assert not AugmentConfig(rotate=30.0, share=0.0).resolved().active
    off = AugmentConfig(policy="natural", flip=False, crop_padding=0, erase=0.0)
    assert not off.resolved().active


def at(matrices: np.ndarray, column: float, row: float) -> np.ndarray:
    x, y, w = np.moveaxis(matrices @ np.array([column, row, 1.0]), -1, 0)
    return np.stack([x / w, y / w], -1)


def test_each_range_is_kept_and_used():
    middle, n = (SIDE - 1) / 2, 4_000
    turned = augmentation(KINDS["rotate"], n).matrix
    angles = np.rad2deg(np.arctan2(turned[:, 1, 0], turned[:, 0, 0]))
    assert (angles.min() < -24.5, angles.max() > 24.5, np.abs(angles).max() <= 25.001) == (
        True,
    ) * 3
    np.testing.assert_allclose(at(turned, middle, middle), middle, atol=1e-4)

    zoomed = 1 / augmentation(KINDS["zoom"], n).matrix[:, 0, 0]
    assert 0.7 <= zoomed.min() < 0.71
    assert 1.39 < zoomed.max() <= 1.4001
    squished = augmentation(KINDS["squish"], n).matrix
    assert np.ptp(1 / squished[:, 0, 0]) > 0.68
    np.testing.assert_allclose(squished[:, 1, 1], 1, rtol=1e-6)

    cropped = at(augmentation(KINDS["crop_padding"], n).matrix, 0, 0)
    assert set(np.unique(np.round(cropped, 3))) == set(range(-4, 5))
    flipped = at(augmentation(KINDS["flip"], n).matrix, 0, 7)
    assert set(np.unique(np.round(flipped[:, 0], 3))) == {0, SIDE - 1}
    assert abs((flipped[:, 0] > 1).mean() - 0.5) < 0.05
    np.testing.assert_allclose(flipped[:, 1], 7, atol=1e-4)

    # Outer corners, half a pixel beyond the middles of the outermost pixels.
    ends = [(-0.5, -0.5), (SIDE - 0.5, -0.5), (SIDE - 0.5, SIDE - 0.5), (-0.5, SIDE - 0.5)]
    for kind, moved in (("perspective", 8), ("tilt", 4), ("skew", 1)):
        drawn = augmentation(KINDS[kind], n).matrix.astype(np.float64)
        shifts = np.stack([at(drawn, *end) - end for end in ends], 1).reshape(n, 8) / (SIDE / 2)
        assert 0.14 < np.abs(shifts).max() <= 0.1501
        assert ((np.abs(shifts) > 1e-4).sum(1) <= moved).all()
        assert ((np.abs(shifts) > 1e-4).sum(1) == moved).mean() > 0.9
        assert (np.abs(shifts) > 1e-4).any(0).all()

    still = augmentation(KINDS["all"]._replace(share=0.25), n).matrix
    assert abs((still == np.eye(3, dtype=np.float32)).all((1, 2)).mean() - 0.75) < 0.03


def test_tones_and_erasing_keep_their_ranges():
    tone = augmentation(KINDS["contrast"], 2_000).tone
    assert 0.6 <= tone[:, 0].min() < 0.61
    np.testing.assert_allclose(tone[:, 0] * 128 + tone[:, 1], 128, rtol=1e-5)
    light = augmentation(KINDS["lighting"], 2_000).tone
    np.testing.assert_array_equal(light[:, 0], 1)
    assert 50 < np.abs(light[:, 1]).max() <= 51.01
    row, column, height, width, grey = augmentation(KINDS["erase"], 2_000).erase.T
    assert abs((height > 0).mean() - 0.5) < 0.04
    assert ((row >= 0) & (row + height <= SIDE) & (column >= 0) & (column + width <= SIDE)).all()
    share = (height * width)[height > 0] / SIDE**2
    assert 0.01 < share.min() < 0.03
    assert 0.15 < share.max() <= 0.2
    assert set(grey) == set(range(256))


def test_what_is_moved_and_what_is_erased_are_drawn_apart():
    drawn = augmentation(AugmentConfig(rotate=10.0, erase=1.0, share=0.5).resolved(), 4_000)
    still = (drawn.matrix == np.eye(3, dtype=np.float32)).all((1, 2))
    tall = drawn.erase[:, 2] > drawn.erase[:, 3]
    assert abs(np.corrcoef(still, tall)[0, 1]) < 0.06


@pytest.mark.parametrize(
    "ranges", [{"zoom": (1.0, 4.0)}, {"jitter": 16.0}, {"zoom": (1.0, 2.5), "jitter": 8.0}]
)
def test_no_visible_ink_is_cut_off_however_digits_are_enlarged(ranges):
    changes_of = Augment(AugmentConfig(**ranges).resolved(), 64)
    digits = Digits.of(IMAGES, LABELS)
    needed = patch_side(
        digits, (0.6, 1.0), stretch=changes_of.stretch(), jitter=changes_of.ranges.jitter
    )
    data = DataConfig(canvas=64, composition="plain")
    shown = []
    for patch in (min(64, needed), 8 * 64):
        compose = Scatter(64, (3,), "largest_value", (0.6, 1.0), 30.0, digits, 5, 128, patch)
        plan = compose.draw(
            np.arange(200, dtype=np.int32), seed=1, stream="train", epoch=0, first=0
        )
        changes = changes_of.draw(200, seed=5, epoch=0, first=0)
        if changes.matrix is not None:
            plan = compose.moved(plan, changes.matrix)
        if patch > 64:  # in the middle of the canvas, and reaching far over it
            plan = plan._replace(corner=np.full_like(plan.corner, 32 - patch // 2))
        dark = plan._replace(tone=np.zeros_like(plan.tone))
        resident = Resident(IMAGES, np.zeros((5, 128, 128), np.uint8), patch)
        shown.append(render_host.render(dark, changes, resident, data=data).astype(int))
    assert np.abs(shown[0] - shown[1]).max() <= 1
    assert shown[0].max() == 255


COMPOSITIONS = ("plain", "plain grey", "scale_blend", "scatter_digits")


@functools.cache
def setting(composition: str, kind: str) -> tuple[Any, Resident, DataConfig]:
    """A composition, what its renderers take pixels from, and the data settings."""
    augment = Augment(KINDS[kind], SIDE)
    n = len(IMAGES)
    # Of its own: the images of a case do not depend on the cases before it.
    rng = np.random.default_rng(zlib.crc32(f"{composition} {kind}".encode()))
    photos = rng.integers(0, 256, (5, 2 * SIDE, 2 * SIDE, 3), np.uint8)
    data = DataConfig(canvas=SIDE, composition="plain")
    if composition == "plain":
        images = rng.integers(0, 256, (n, SIDE, SIDE, 3), np.uint8)
        return Plain(SIDE), Resident(images, photos[:0]), data
    if composition == "plain grey":
        return Plain(SIDE), Resident(IMAGES, photos[:0]), data
    if composition == "scale_blend":
        compose = ScaleBlend(SIDE, (10, 20, SIDE), "random", 0.5, 5, 2 * SIDE)
        return compose, Resident(IMAGES, photos), data
    digits = Digits.of(IMAGES, LABELS)
    patch = min(SIDE, patch_side(digits, (0.4, 0.7), stretch=augment.stretch()))
    compose = Scatter(SIDE, (3,), "largest_value", (0.4, 0.7), 30.0, digits, 5, 2 * SIDE, patch)
    return compose, Resident(IMAGES, photos[..., 0], patch), data


_render = jax.jit(render_device.render, static_argnames="data")


def both(composition: str, kind: str, n: int, **finish) -> tuple[np.ndarray, np.ndarray]:
    compose, resident, data = setting(composition, kind)
    data = dataclasses.replace(data, **finish)
    examples = np.arange(n, dtype=np.int32) % len(IMAGES)
    plan = compose.draw(examples, seed=1, stream="train", epoch=0, first=0)
    changes = augmentation(KINDS[kind], n)
    if isinstance(compose, Scatter) and changes.matrix is not None:
        plan = compose.moved(plan, changes.matrix)
    host = render_host.render(plan, changes, resident, data=data)
    return host, np.asarray(_render(plan, changes, resident, data=data))


# Each by itself where images are moved, and where plans are; several at once everywhere.
AGREEMENTS = [slow(each, kind) for each in ("plain", "scatter_digits") for kind in EACH]
AGREEMENTS += [slow(each, kind) for each in COMPOSITIONS for kind in ("digits", "natural")]
AGREEMENTS += [(each, "all") for each in COMPOSITIONS]


@pytest.mark.parametrize(("composition", "kind"), AGREEMENTS)
def test_the_renderers_agree_within_one_grey_level(composition, kind):
    host, device = both(composition, kind, 2_000)
    assert host.shape == device.shape == (2_000, SIDE, SIDE, 3)
    difference = np.abs(host.astype(int) - device)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 2e-3  # a level here and there, not a shift
    assert host.std() > 20


def test_digits_move_with_their_background():
    # A digit that covers nothing but its own pixels: where ink was, there is ink after the warp.
    compose, resident, data = setting("scatter_digits", "rotate")
    examples = np.arange(30, dtype=np.int32)
    plan = compose.draw(examples, seed=1, stream="train", epoch=0, first=0)
    dark = plan._replace(tone=np.zeros_like(plan.tone))
    changes = augmentation(KINDS["rotate"], 30)
    moved = render_host.render(compose.moved(dark, changes.matrix), changes, resident, data=data)
    still = render_host.render(dark, None, resident, data=data)
    plain = Plain(SIDE).draw(examples, seed=1, stream="train", epoch=0, first=0)
    again = dataclasses.replace(resident, images=still[..., 0])
    twice = render_host.render(plain, changes, again, data=data)
    inner = np.s_[:, 8:-8, 8:-8]  # the warp of an image is mirrored where digits leave it
    correlation = np.corrcoef(moved[inner].ravel(), twice[inner].ravel())[0, 1]
    assert correlation > 0.95  # resampled twice there, once here
    assert np.corrcoef(moved[inner].ravel(), still[inner].ravel())[0, 1] < correlation - 0.1


def test_flip_and_crop_are_exact():
    _, resident, data = setting("plain", "flip")
    plan = Plain(SIDE).draw(np.arange(8, dtype=np.int32), seed=0, stream="train", epoch=0, first=0)
    for kind in ("flip", "crop_padding"):
        changes = augmentation(KINDS[kind], 8)
        shown = render_host.render(plan, changes, resident, data=data)
        for image, matrix, augmented in zip(resident.images, changes.matrix, shown, strict=False):
            padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="reflect")
            column, row = np.round(matrix[:2, 2]).astype(int)
            if kind == "flip":
                expected = image[:, ::-1] if matrix[0, 0] < 0 else image
            else:
                expected = padded[row + 4 : row + 4 + SIDE, column + 4 : column + 4 + SIDE]
            np.testing.assert_array_equal(augmented, expected)


FINISHES = {
    "resized up": {"resize": 96},
    "resized down": {"resize": 28},
    "padded": {"pad": 61},
    "centred": {"threshold": 0.6, "center": True},
}


@pytest.mark.parametrize(
    ("composition", "finish"),
    [
        (each, finish) if each == "scatter_digits" else slow(each, finish)
        for each in COMPOSITIONS
        for finish in FINISHES
    ],
)
def test_the_renderers_finish_alike(composition, finish):
    host, device = both(composition, "flip", 500, **FINISHES[finish])
    side = {"resized up": 96, "resized down": 28, "padded": 61, "centred": SIDE}[finish]
    assert host.shape == device.shape == (500, side, side, 3)
    if finish != "centred":
        assert np.abs(host.astype(int) - device).max() <= 1
        return
    # At the threshold a level decides between black and the value itself, and so where the box
    # lies: all but a few images agree throughout.
    apart = (np.abs(host.astype(int) - device) > 1).any((1, 2, 3))
    assert apart.mean() < 0.02


def test_threshold_centring_and_padding_do_what_they_say():
    image = np.zeros((SIDE, SIDE), np.uint8)
    image[3:8, 22:32], image[0, 0], image[20, 20] = 250, 229, 230
    resident = Resident(image[None], np.empty((0, 1, 1, 3), np.uint8))
    plan = Plain(SIDE).draw(np.zeros(1, np.int32), seed=0, stream="train", epoch=0, first=0)
    data = DataConfig(composition="plain", canvas=SIDE, threshold=0.9)
    centred = dataclasses.replace(data, center=True, pad=53)
    for render in (render_host.render, _render):
        kept = np.asarray(render(plan, None, resident, data=data))[0, ..., 0]
        assert (kept[0, 0], kept[20, 20], kept[3, 22]) == (0, 230, 250)
        shown = np.asarray(render(plan, None, resident, data=centred))[0]
        rows, columns = (np.flatnonzero(shown.any((axis, 2))) for axis in (1, 0))
        # 18 rows and 12 columns in the middle of 32, below and right of 10 pixels of padding.
        assert (rows[0], rows[-1], columns[0], columns[-1]) == (10 + 7, 10 + 24, 10 + 10, 10 + 21)
        nothing = dataclasses.replace(resident, images=np.zeros_like(image)[None])
        assert not np.asarray(render(plan, None, nothing, data=centred)).any()
