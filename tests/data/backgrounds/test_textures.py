import math

import numpy as np
import pytest

from jaxres.config import Split
from jaxres.data.backgrounds import textures
from jaxres.data.datasets.splits import SPLITS
from jaxres.runtime.errors import InputError

# Kind: the range of the mean of an image, and of the standard deviation within an image.
RANGES = {
    "rings": ((60, 125), (30, 65)),
    "starfield": ((15, 60), (7, 50)),
    "speckle": ((50, 170), (10, 55)),
    "gravel": ((90, 170), (20, 60)),
    "scratches": ((75, 175), (5, 45)),
    "ripples": ((25, 90), (8, 50)),
    "contours": ((15, 195), (5, 70)),
    "noise": ((20, 175), (4, 70)),
}


def bank(
    weights: dict[str, float] | None = None,
    *,
    split: Split = "train",
    seed: int = 0,
    side: int = 64,
    count: int = 16,
) -> np.ndarray:
    weights = textures.CONTEST_MIX if weights is None else weights
    return textures.texture_bank(weights, split=split, seed=seed, side=side, count=count)


def test_a_bank_is_a_function_of_its_arguments_and_starts_with_the_shorter_one():
    np.testing.assert_array_equal(bank(), bank())
    np.testing.assert_array_equal(bank(count=5), bank()[:5])


def test_no_texture_is_drawn_twice():
    banks = [bank(split=split, seed=seed) for split in SPLITS for seed in (0, 1)]
    images = [image.tobytes() for some in banks for image in some]
    assert len(set(images)) == len(images)


@pytest.mark.parametrize("kind", textures.TEXTURES)
def test_every_kind_keeps_its_brightness_and_contrast(kind: str):
    images = bank({kind: 1.0}, side=128, count=24).astype(np.float64)
    means, deviations = images.mean((1, 2)), images.std((1, 2))
    (darkest, brightest), (flattest, strongest) = RANGES[kind]
    assert darkest <= means.min()
    assert means.max() <= brightest
    assert flattest <= deviations.min()
    assert deviations.max() <= strongest
    assert deviations.max() > 1.15 * deviations.min()  # no kind is one image over and over


@pytest.mark.parametrize("side", [8, 33])
@pytest.mark.parametrize("kind", textures.TEXTURES)
def test_every_side_is_allowed(kind: str, side: int):
    assert bank({kind: 1.0}, side=side, count=2).shape == (2, side, side)


def test_kinds_come_in_proportion_to_their_weights(monkeypatch: pytest.MonkeyPatch):
    levels = dict(zip(textures.TEXTURES, range(len(textures.TEXTURES)), strict=True))
    for kind, level in levels.items():
        monkeypatch.setitem(
            textures.TEXTURES, kind, lambda draws, side, level=level: np.full((side, side), level)
        )
    drawn = bank({"rings": 3.0, "gravel": 1.0, "noise": 0.0}, side=8, count=4000)[:, 0, 0]
    counts = np.bincount(drawn, minlength=len(levels))
    assert counts[levels["rings"]] + counts[levels["gravel"]] == 4000
    # 3000 expected, with a standard deviation of 27
    assert abs(counts[levels["rings"]] - 3000) < 110


def test_the_contest_mix_has_the_contest_statistics():
    """With three white digits on each: 1.9 % of the pixels are 255, and 0.65 % are edges."""
    images = bank(side=128, count=256).reshape(256, -1).astype(np.float64)
    means = images.mean(1)
    assert means.min() == pytest.approx(19, abs=5)
    assert means.max() == pytest.approx(172, abs=12)
    core, edge = round(0.019 * 128**2), round(0.0255 * 128**2)
    images[:, :core] = 255
    images[:, core:edge] = 228
    assert images.mean() == pytest.approx(98, abs=4)
    assert images.std() == pytest.approx(62, abs=4)
    assert np.mean((images > 200) & (images < 255)) == pytest.approx(0.016, abs=0.004)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"ring": 1.0}, "unknown texture 'ring': did you mean 'rings'"),
        ({"rings": -1.0}, "the weight of texture 'rings' is -1.0; allowed: 0 or more"),
        ({"rings": math.nan}, "the weight of texture 'rings' is nan"),
        ({"rings": math.inf}, "the weight of texture 'rings' is inf"),
        ({"rings": 0.0}, r"the texture weights are {'rings': 0.0}; allowed: at least one above 0"),
        ({}, r"the texture weights are {}; allowed: at least one above 0"),
    ],
)
def test_unusable_weights(weights: dict[str, float], message: str):
    with pytest.raises(InputError, match=message):
        bank(weights)
