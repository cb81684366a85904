"""Runs on datasets of a user's own, from the command line: trained, resumed, evaluated."""

import json
from pathlib import Path
from typing import Any

import chex
import numpy as np
import pytest

import jaxres
from jaxres.cli.main import main
from jaxres.data.composed import open_split
from jaxres.data.pipeline import TrainBatch, train_batches
from jaxres.runtime.errors import InputError
from jaxres.weights import exporting
from tests import tiny
from tests.data.own.conftest import Settings
from tests.data.own.forms import CLASSES, FORMS, Form

assert tiny.Tiny


@pytest.mark.parametrize("form", FORMS)
def test_batches_are_the_same_however_they_are_made(
    image_folder: Path, settings: Settings, form: Form
):
    """By one process or four, from the start or from any step, on the host."""
    config = settings(form(image_folder), "--data.render=host", "--augment.policy=natural")
    dataset = open_split(config, "train")
    straight = list(train_batches(dataset, config))
    resumed = train_batches(open_split(config, "train"), config)
    resumed.set_state(resumed.state_after(2))
    chex.assert_trees_all_equal(straight[2:], list(resumed))
    for step, whole in enumerate(straight):
        parts = [TrainBatch(dataset, 8, process, 4)(step) for process in range(4)]
        joined = {key: np.concatenate([part[key] for part in parts]) for key in whole}
        chex.assert_trees_all_equal(joined, whole)


@pytest.fixture
def flags(image_folder: Path, tmp_path: Path) -> list[str]:
    """A recipe and flags of a small run on rows of several classes."""
    table = tmp_path / "several.csv"
    files = sorted(image_folder.rglob("*.*"))
    rows = [
        f"{file.relative_to(tmp_path)},{int(file.parent.name == 'cat')},{place % 2}"
        for place, file in enumerate(files)
    ]
    table.write_text("\n".join(["file,cat,odd", *rows]))
    recipe = tmp_path / "own.yaml"
    recipe.write_text(
        f"data: {{dataset: 'csv:{table}', composition: plain, canvas: 32, batch_size: 8}}\n"
        "model: {name: tiny}\n"
        "train: {epochs: 2, loss: sigmoid_cross_entropy}\n"
    )
    return [str(recipe)]


def test_multi_label_data_are_trained_evaluated_and_predicted(
    flags: list[str], image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run_dir = tmp_path / "run"
    assert main(["train", *flags, "--output-dir", str(run_dir)]) == 0
    assert "mAP" in capsys.readouterr().out
    summary = json.loads((run_dir / "summary.json").read_text())
    assert 0 < summary["test"]["mean_average_precision"] <= 1
    assert main(["evaluate", str(run_dir), "--json"]) == 0
    again: dict[str, Any] = json.loads(capsys.readouterr().out)
    for key in ("mean_average_precision", "accuracy", "loss", "per_class"):
        assert again[key] == summary["test"][key]
    best = summary["validation"]["best"] if "validation" in summary else None
    assert best is None or "mean_average_precision" in best
    assert main(["predict", str(run_dir), str(image_folder / "cat" / "0.jpg"), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["predictions"]
    assert found["probabilities"].keys() == {"cat", "odd"}
    assert found["classes"] == [k for k, each in found["probabilities"].items() if each > 0.5]
    predicted = jaxres.load(run_dir).predict([str(image_folder / "cat" / "0.jpg")])
    np.testing.assert_allclose(
        predicted.probabilities[0], list(found["probabilities"].values()), rtol=1e-5
    )
    assert main(["show", "mistakes", str(run_dir), "-o", str(tmp_path / "m.png")]) == 2
    assert "one class per image" in capsys.readouterr().err


def test_the_default_loss_is_refused_for_multi_label_data(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    words = [*flags, "--train.loss=cross_entropy", "--output-dir", str(tmp_path / "run")]
    assert main(["train", *words]) == 2
    assert "train.loss is cross_entropy, but an image of the dataset may be of several" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()


def test_a_run_knows_its_classes_without_the_dataset(
    image_folder: Path, tmp_path: Path, tiny_flags: list[str]
):
    (tmp_path / "tiny.yaml").write_text("{}")
    settings = {
        "data.dataset": f"folder:{image_folder}",
        "data.composition": "plain",
        "data.batch_size": 8,
        "data.canvas": 32,
        "data.render": "host",
        "model.name": "tiny",
        "train.epochs": 1,
    }
    run = jaxres.train(tmp_path / "tiny.yaml", settings, output_dir=tmp_path / "run")
    image_folder.rename(tmp_path / "gone")
    model = run.load()
    assert model.class_names == tuple(CLASSES)
    (seen,) = model.predict(str(tmp_path / "gone" / "cat" / "0.jpg")).classes
    assert seen in CLASSES
    exporting.write_card(tmp_path / "run", tmp_path / "card.md")
    assert "Of a photograph it is the square in the middle" in (tmp_path / "card.md").read_text()
    with pytest.raises(InputError, match="does not exist"):
        run.evaluate()


@pytest.mark.slow
def test_images_grow_as_the_epochs_go(
    image_folder: Path, tmp_path: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
):
    recipe = tmp_path / "grow.yaml"
    recipe.write_text(
        "data: {composition: plain, canvas: 48, short_side: 54, batch_size: 8, render: host,\n"
        "  progressive: ['0:32', '2:40', '3:48']}\n"
        "augment: {policy: imagenet}\n"
        "model: {name: tiny}\n"
        "train: {epochs: 4, evaluate_every_epochs: 4}\n"
    )
    words = ["train", str(recipe), f"--data.dataset=folder:{image_folder}", "--output-dir"]
    assert main([*words, str(tmp_path / "run")]) == 0
    assert "test accuracy" in capsys.readouterr().out
    flags = ["--data.canvas=48", "--data.render=host", "--augment.policy=imagenet"]
    config = settings(f"folder:{image_folder}", *flags, "--data.progressive", "0:32", "2:40")
    dataset = open_split(config, "train")
    numbers = np.arange(4, dtype=np.int32)
    sides = [
        dataset.in_epoch(epoch).batch(numbers, epoch=epoch, first=0)["image"].shape[1]
        for epoch in (0, 1, 2, 9)
    ]
    assert sides == [32, 32, 40, 40]
    assert open_split(config, "test").in_epoch(0).data.canvas == 48


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--data.progressive", "0:32", "0:40"], "has '0:40'; allowed: EPOCH:SIDE in rising"),
        (["--data.progressive", "0:64"], r"has '0:64'; allowed: .* 28 to data.canvas \(48\)"),
        (["--data.progressive", "first:32"], "has 'first:32'"),
        (["--data.progressive", "0:32", "--data.render=device"], "allowed with it: host and plain"),
    ],
)
def test_sides_that_cannot_be(settings: Settings, flags: list[str], reason: str):
    with pytest.raises(InputError, match=reason):
        settings("digits", "--data.canvas=48", "--data.render=host", *flags)


def test_a_network_whose_weights_depend_on_the_side_cannot_grow(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    recipe = tmp_path / "grow.yaml"
    recipe.write_text(
        "data: {composition: plain, canvas: 48, batch_size: 8, render: host,\n"
        "  progressive: ['0:32']}\n"
        "model: {name: handbook_mlp}\n"
    )
    words = ["train", str(recipe), f"--data.dataset=folder:{image_folder}", "--output-dir"]
    assert main([*words, str(tmp_path / "run")]) == 2
    assert "side 32, at which handbook_mlp has other weights" in capsys.readouterr().err
