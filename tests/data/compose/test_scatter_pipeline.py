"""Scattered digits and augmentation through the whole pipeline, up to the trained network."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxres.data.compose.scatter import Scatter
from jaxres.data.composed import open_split
from jaxres.data.datasets import registry
from jaxres.data.inputs import images_of
from jaxres.data.pipeline import train_batches
from jaxres.runtime.errors import InputError
from jaxres.training import loop
from tests.marked import slow

SCATTER = ["--data.composition=scatter_digits", "--data.canvas=64", "--data.texture-count=12"]
AUGMENTED = [*SCATTER, "--augment.policy=digits", "--data.digit-rotation=20"]
FINISHED = ["--data.resize=48", "--data.threshold=0.5", "--data.center=true", "--data.pad=56"]


@pytest.mark.parametrize("flags", [SCATTER, slow(AUGMENTED), [*AUGMENTED, "--data.resize=40"]])
def test_both_renderers_make_the_same_batches(tiny_config, flags) -> None:
    config, hosted = tiny_config(*flags), tiny_config(*flags, "--data.render=host")
    dataset, host = open_split(config, "train"), open_split(hosted, "train")
    draw = jax.jit(lambda resident, batch: images_of(config, resident, batch))
    both = zip(train_batches(dataset, config), train_batches(host, hosted), strict=True)
    for step, (ours, theirs) in enumerate(both):
        np.testing.assert_array_equal(ours["label"], theirs["label"])
        if step % 9 == 0:
            rendered = np.asarray(draw(dataset.resident, ours))
            assert np.abs(rendered.astype(int) - theirs["image"]).max() <= 1


def test_evaluation_is_not_augmented_and_training_may_be_stored(tiny_config) -> None:
    config = tiny_config(*AUGMENTED, "--data.fresh-pictures=false")
    assert open_split(config, "validation").augment is None
    dataset = open_split(config, "train")
    examples = np.array([5, 3, 300], np.int32)
    first, later = (dataset.batch(examples, epoch=k, first=9 * k) for k in (0, 4))
    np.testing.assert_array_equal(first["label"], later["label"])
    np.testing.assert_array_equal(first["plan"].digit, later["plan"].digit)
    assert (first["augmentation"].tone != later["augmentation"].tone).any()
    fresh = open_split(tiny_config(*SCATTER), "train")
    plans = [fresh.batch(examples, epoch=k, first=0)["plan"].digit for k in (0, 1)]
    assert (plans[0] != plans[1]).any()


def test_evaluation_of_digits_takes_the_settings_of_photographs(tiny_config) -> None:
    natural = tiny_config("--augment.policy=natural")
    assert open_split(natural, "test").augment is None
    with pytest.raises(InputError, match="mirrored digits"):
        open_split(natural, "train")


def test_a_limit_is_on_images_not_on_digits(tiny_config) -> None:
    dataset = open_split(tiny_config(*SCATTER), "train")
    assert (len(dataset), len(dataset.source.labels)) == (320, 1197)
    batch = dataset.batch(np.arange(320, dtype=np.int32), epoch=0, first=0)
    assert batch["plan"].digit.max() > 320


def test_splits_share_no_texture(tiny_config) -> None:
    config = tiny_config(*SCATTER)
    banks = [open_split(config, split).resident.photos for split in registry.SPLITS]
    assert len({texture.tobytes() for bank in banks for texture in bank}) == 36


def test_photographs_take_their_share_of_the_bank(tiny_config) -> None:
    flags = ["--data.canvas=100", "--data.textures", "rings:1", "photos:2"]
    bank = open_split(tiny_config(*SCATTER, *flags), "train").resident.photos
    assert bank.shape == (12, 200, 200)
    only = open_split(tiny_config(*SCATTER, *flags[:-2], "photos:1"), "train").resident.photos
    np.testing.assert_array_equal(bank[4:], only[:8])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data.digit-scale", "1", "9"], "digits may need .* fits data.canvas"),
        (["--data.textures", "rings:1", "waves:1"], "texture 'waves'"),
        (["--data.textures", "rings"], "data.textures has 'rings'; allowed: KIND:WEIGHT"),
        (["--data.textures", "rings:nan"], "data.textures has 'rings:nan'"),
        (["--data.textures", "rings:1", "rings:2"], "rings twice"),
        (["--data.digits", "0"], "allowed: 1 to 16"),
        (["--data.pad=60"], "data.pad is 60; allowed: the image's side"),
        (["--augment.flip=true"], "mirrored digits are not digits"),
        (["--augment.rotate=50"], "augment.rotate is 50 for digits; allowed: 0 to 25"),
        (["--data.threshold=1", "--data.divisor=256"], "no grey level reaches; allowed: 0 to 0.99"),
        (["--data.texture-count=1000000000"], "data.texture_count is 1000000000; allowed: 1 to"),
        (["--data.texture-count=16000", "--data.canvas=512"], "a bank of .* MiB; allowed: 4096"),
        (["--augment.zoom", "2", "1"], "augment.zoom is 2.0 1.0"),
        (["--augment.perspective=0.9"], "augment.perspective is 0.9; allowed: 0 to 0.3"),
        (["--augment.erase=1.5"], "augment.erase is 1.5; allowed: 0 to 1"),
        (["--augment.lighting=nan"], "allowed: finite numbers"),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(tiny_config, flags, message) -> None:
    with pytest.raises((InputError, ValueError), match=message) as refused:
        open_split(tiny_config(*SCATTER, *flags), "train")
    assert "\n" not in str(refused.value)


def test_images_that_are_composed_already_are_for_plain(tiny_config, monkeypatch) -> None:
    known = registry.DATASETS["digits"]
    monkeypatch.setitem(registry.DATASETS, "digits", dataclasses.replace(known, composed=True))
    with pytest.raises(InputError, match="digits are composed already; allowed: plain"):
        open_split(tiny_config(*SCATTER), "train")


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        [*AUGMENTED, *FINISHED, "--train.parallel=pmap"],
        slow(
            [
                *AUGMENTED,
                "--data.target=sum",
                "--data.digits",
                "1",
                "2",
                "--train.steps-per-call=2",
            ]
        ),
        slow([*SCATTER, "--data.target=count", "--data.render=host", "--data.workers=1"]),
    ],
)
def test_training_runs_to_its_summary(tiny_config, tmp_path: Path, flags) -> None:
    config = tiny_config(*flags, "--train.epochs=1", "--train.limit-train-examples=128")
    summary = loop.train(config, tmp_path / "run")
    compose = open_split(config, "test").compose
    assert isinstance(compose, Scatter)
    assert len(summary["test"]["per_class"]) == len(compose.class_names(()))
    assert np.isfinite(summary["test"]["loss"])


def test_the_label_of_an_augmented_image_is_that_of_the_plan(tiny_config) -> None:
    plain, augmented = (open_split(tiny_config(*flags), "train") for flags in (SCATTER, AUGMENTED))
    assert isinstance(plain.compose, Scatter)
    turned_less = dataclasses.replace(plain.compose, rotation=20.0)
    plain = dataclasses.replace(plain, compose=turned_less)
    examples = np.arange(60, dtype=np.int32)
    batches = [each.batch(examples, epoch=1, first=0) for each in (plain, augmented)]
    np.testing.assert_array_equal(batches[0]["label"], batches[1]["label"])
    assert (batches[0]["plan"].to_digit != batches[1]["plan"].to_digit).any()
