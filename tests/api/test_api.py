"""JaxRes from Python: what the calls give, what they refuse, and what they leave behind."""

import dataclasses
import functools
import logging
import pathlib

import chex
import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxres
from jaxres.config import OptimConfig
from jaxres.data.datasets import registry as datasets
from jaxres.models import registry as models
from jaxres.training import optim
from tests.conftest import TINY_FLAGS
from tests.tiny import Tiny

assert Tiny
SETTINGS = {
    words[2:].partition("=")[0].replace("-", "_"): words.partition("=")[2] for words in TINY_FLAGS
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> jaxres.TrainedRun:
    """A run of the tiny network, by the recipe that is shipped."""
    return jaxres.train("quickstart", SETTINGS, output_dir=tmp_path_factory.mktemp("api") / "run")


def test_a_run_is_trained_opened_and_read(trained: jaxres.TrainedRun) -> None:
    run = jaxres.open_run(trained.path)
    assert run.config.train.epochs == 2
    assert run.config.data.canvas == 32
    assert run.checkpoints() == [10, 20]
    assert [row["step"] for row in run.history("validation")] == [10, 20]
    assert len(run.history()) == len(run.history("train")) + 3
    result = run.evaluate()
    assert result["accuracy"] == run.summary["test"]["accuracy"]
    assert "outputs" not in result


def test_outputs_are_those_the_metrics_are_of(trained: jaxres.TrainedRun) -> None:
    result = trained.evaluate(
        split="validation", checkpoint=20, settings={"data.digit_side": 16}, outputs=True
    )
    outputs = result["outputs"]
    assert result["checkpoint"] == 20
    assert outputs["logits"].shape == (50, 10)
    np.testing.assert_array_equal(outputs["logits"].argmax(-1), outputs["predicted"])
    assert (outputs["predicted"] == outputs["label"]).mean() == pytest.approx(result["accuracy"])
    assert outputs["loss"].mean() == pytest.approx(result["loss"], rel=1e-6)


def test_images_of_any_size_and_form(trained: jaxres.TrainedRun, tmp_path: pathlib.Path) -> None:
    model = trained.load("last")
    assert model.step == 20
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    found = model.predict(images)
    assert found.probabilities.shape == (5, 10)
    np.testing.assert_allclose(found.probabilities.sum(-1), 1, rtol=1e-5)
    assert found.classes == [model.class_names[k] for k in found.labels]
    logits = model.logits(images)
    # As JAX: the same weights, function and normalisation, without batches or devices.
    plain, _ = model.apply(model.params, model.stats, model.normalise(images), train=False)
    np.testing.assert_allclose(logits, plain, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(logits, model.logits([*images]))
    # Batches of another size are computed in another order.
    assert_near = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    larger = [np.repeat(np.repeat(images[0], 2, 0), 2, 1), images[1]]
    assert model.logits(larger).shape == (2, 10)
    assert_near(model.logits(larger)[1], logits[1])
    grey = np.repeat(images[..., :1], 3, -1)
    np.testing.assert_array_equal(model.logits(grey), model.logits(images[..., 0]))
    files = [tmp_path / f"{k}.png" for k in range(2)]
    for file, image in zip(files, images, strict=False):
        cv2.imwrite(str(file), image[..., ::-1])
    assert_near(model.logits([*map(str, files)]), logits[:2])
    assert_near(model.logits(files[0]), logits[:1])
    assert model.features(images).shape == (5, 8, 8, 16)
    chex.assert_tree_all_finite(model.features(images))


def test_networks_by_name() -> None:
    net = jaxres.create_model("cifar_resnet20", classes=7, image_size=32, seed=3)
    again = jaxres.create_model("cifar_resnet20", classes=7, image_size=32, seed=3)
    chex.assert_trees_all_equal(net.params, again.params)
    logits, _ = net.apply(net.params, net.stats, jnp.ones((2, 32, 32, 3)), train=False)
    assert logits.shape == (2, 7)
    assert "wide_resnet50_2" in jaxres.list_models("*wide*")
    assert "resnet50" not in jaxres.list_models("*wide*")


def test_what_cannot_be_used_is_one_sentence(
    trained: jaxres.TrainedRun, tmp_path: pathlib.Path
) -> None:
    model, out = trained.load(), tmp_path / "run"
    wrong = {
        "unknown recipe 'quickstrt': did you mean 'quickstart'": lambda: jaxres.train(
            "quickstrt", output_dir=out
        ),
        "did you mean 'train.epochs'": lambda: jaxres.train(
            "quickstart", {"train.epoch": 1}, output_dir=out
        ),
        "settings have the key 'epochs'; allowed: 'section.key'": lambda: jaxres.train(
            "quickstart", {"epochs": 1}, output_dir=out
        ),
        "is not a run directory": lambda: jaxres.open_run(tmp_path / "nothing"),
        "has no folder 'checkpoints'": lambda: jaxres.load(tmp_path / "nothing"),
        "allowed: best, last, 10, 20": lambda: trained.load(7),
        "unknown split 'tset'": lambda: trained.evaluate(split="tset"),
        "no images were given": lambda: model.predict([]),
        "type float64; allowed: uint8": lambda: model.predict(np.zeros((2, 9, 9, 3))),
        "of one image, ": lambda: model.predict(np.zeros((9, 9, 3), np.uint8)),
        "no image at 'nowhere.png'": lambda: model.predict(["nowhere.png"]),
        "unknown model 'resnet5'": lambda: jaxres.create_model("resnet5", classes=2),
        "unknown option 'colour'": lambda: jaxres.create_model("vgg16", classes=2, colour=1),
        "classes is 0; allowed: 1 or more": lambda: jaxres.create_model("vgg16", classes=0),
    }
    for message, call in wrong.items():
        with pytest.raises(jaxres.InputError) as raised:
            call()
        assert message in str(raised.value)
        assert "\n" not in str(raised.value)
    assert not out.exists()


def test_the_process_is_left_as_it_was(trained: jaxres.TrainedRun, capfd) -> None:
    talkative = logging.getLogger("absl")
    level, folder = talkative.level, jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    trained.evaluate()
    trained.load()
    assert (talkative.level, jax.config.jax_compilation_cache_dir) == (level, folder)  # type: ignore[attr-defined]
    assert capfd.readouterr().err == ""
    assert {"train", "load", "InputError"} <= set(dir(jaxres))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = jaxres.trian  # type: ignore[attr-defined]


def test_what_is_registered_is_known_and_no_name_is_taken_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(models, "_MODELS", dict(models._MODELS))
    monkeypatch.setattr(optim, "OPTIMIZERS", dict(optim.OPTIMIZERS))
    monkeypatch.setattr(datasets, "DATASETS", dict(datasets.DATASETS))

    assert jaxres.register_model("mine")(Tiny) is Tiny
    assert jaxres.create_model("mine", classes=3, image_size=32).params["conv1"]
    jaxres.register_optimizer("mine")(optim.OPTIMIZERS["sgd"])
    assert optim.create(OptimConfig(name="mine"), total_steps=10)
    mine = dataclasses.replace(datasets.DATASETS["digits"], name="mine")
    assert jaxres.register_dataset(mine) is mine
    assert "mine" in [row.name for row in datasets.describe(pathlib.Path())]

    for again in (
        lambda: jaxres.register_model("mine")(Tiny),
        lambda: jaxres.register_optimizer("mine")(optim.OPTIMIZERS["sgd"]),
        lambda: jaxres.register_dataset(mine),
        lambda: jaxres.register_loss("cross_entropy")(lambda logits, labels, smoothing: labels),
    ):
        with pytest.raises(ValueError, match="already registered"):
            again()
