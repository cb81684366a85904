"""`jaxres show`: sheets and JSON of a run, every mistake a sentence and no file."""

import json
import pathlib
from typing import Any

import cv2
import numpy as np
import pytest

from jaxres.checkpoint.manager import Checkpoints
from jaxres.cli.main import main
from jaxres.config import Config, recipe, to_dict
from jaxres.data.composed import open_split
from jaxres.evaluation.run import evaluate
from jaxres.models.build import network
from tests import tiny
from tests.cli.test_main import fails
from tests.conftest import TINY_FLAGS

assert tiny.Tiny


def save(folder: pathlib.Path, *flags: str, change: Any = None) -> pathlib.Path:
    """A run directory of random weights."""
    config = recipe.parse(Config, [*TINY_FLAGS, *flags], prog="test")
    net = network(config, classes=10)
    if change is not None:
        change(net.params)
    checkpoints = Checkpoints(folder / "checkpoints", config.checkpoint)
    progress = {"history": [], "best": None}
    weights = {"params": net.params, "stats": net.stats}
    checkpoints.save(0, weights, progress=progress, config=to_dict(config))
    checkpoints.close()
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save(tmp_path_factory.mktemp("show") / "run"))


@pytest.fixture
def image(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "image.png"
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    assert cv2.imwrite(str(path), image)
    return str(path)


def sheet(path: pathlib.Path) -> np.ndarray:
    image = cv2.imread(str(path))
    assert image is not None
    return image


def test_mistakes(run: str, tmp_path: pathlib.Path, capfd) -> None:
    output = tmp_path / "mistakes.png"
    words = ["show", "mistakes", run, "-o", str(output), "--count", "5"]
    assert main([*words, "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    metrics = evaluate(pathlib.Path(run))
    assert said["wrong"] == len(said["mistakes"]) == round(50 * (1 - metrics["accuracy"]))
    assert said["examples"] == 50
    assert said["written"] == str(output)
    sure = [row["probability"] for row in said["mistakes"]]
    assert sure == sorted(sure, reverse=True)
    assert all(row["label"] != row["predicted"] for row in said["mistakes"])
    assert sheet(output).shape[0] == 2 * (64 + 16 + 4) + 4  # 5 images, enlarged, in 2 rows
    assert main([*words, "--split", "validation", "--train.limit-eval-examples", "20"]) == 0
    assert " of 20 examples of validation wrong (" in capfd.readouterr().out


def test_a_run_without_mistakes(tmp_path: pathlib.Path, capfd) -> None:
    """It says always the same, and is shown nothing else."""
    labels = open_split(recipe.parse(Config, TINY_FLAGS, prog="test"), "test").source.labels
    alike = int((labels != labels[0]).argmax())

    def always_the_first(params: Any) -> None:
        last = params["head"]["linear"]
        last["kernel"], last["bias"] = 0 * last["kernel"], last["bias"].at[labels[0]].set(5)

    folder = str(save(tmp_path / "run", change=always_the_first))
    output = tmp_path / "mistakes.png"
    words = ["show", "mistakes", folder, "-o", str(output), "--train.limit-eval-examples"]
    assert main([*words, str(alike)]) == 0
    assert capfd.readouterr().out.startswith(f"no mistakes: all {alike} examples of test are right")
    assert not output.exists()
    assert main([*words, str(alike), "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    assert (said["mistakes"], said["wrong"], said["written"]) == ([], 0, None)
    assert main([*words, str(alike + 1)]) == 0
    assert f"1 of {alike + 1} examples of test wrong" in capfd.readouterr().out
    assert output.exists()


@pytest.mark.slow
def test_attention_on_the_split(run: str, tmp_path: pathlib.Path, capfd) -> None:
    output = tmp_path / "attention.png"
    words = ["show", "attention", run, "-o", str(output), "--count", "4", "--method", "both"]
    assert main([*words, "--json", "--label-of", "true"]) == 0
    said = json.loads(capfd.readouterr().out)
    assert said["layer"] == "features"
    assert said["positions"] == [8, 8]
    assert [row["example"] for row in said["pictures"]] == [0, 1, 2, 3]
    for row in said["pictures"]:
        assert row["map_of_class"] == row["class"]
        assert set(row["mass_in_box"]) == {"grad_cam", "occlusion"}
    inside = said["mass_in_box"]
    assert inside["chance"] == pytest.approx((24 / 32) ** 2)
    for method in ("grad_cam", "occlusion"):
        shares = [row["mass_in_box"][method] for row in said["pictures"]]
        assert inside[method] == pytest.approx(np.mean(shares))
    assert sheet(output).shape == (4 * (64 + 16 + 4) + 4, 3 * 64 + 2 * 2 + 4 + 4, 3)
    assert main([*words[:-2], "--layer", "conv1"]) == 0
    said = capfd.readouterr().out
    assert "layer conv1: 16x16 positions" in said
    assert "mass inside the digit's box, grad_cam: 0." in said
    assert "by chance 0.562" in said
    assert main([*words[:-1], "all", "--layer", "conv1", "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    assert set(said["mass_in_box"]) == {"grad_cam", "layer_cam", "occlusion", "chance"}
    assert len(set(said["mass_in_box"].values())) == 4


def test_attention_on_files(run: str, image: str, tmp_path: pathlib.Path, capfd) -> None:
    output = tmp_path / "attention.png"
    words = ["show", "attention", run, image, image, "-o", str(output)]
    assert main([*words, "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    assert [row["file"] for row in said["pictures"]] == [image, image]
    assert said["mass_in_box"] is None
    assert main(["predict", run, image, "--json"]) == 0
    (wanted,) = json.loads(capfd.readouterr().out)["predictions"]
    assert said["pictures"][0]["predicted_class"] == wanted["class"]
    assert said["pictures"][0]["probability"] == pytest.approx(wanted["probability"], abs=1e-5)
    assert sheet(output).shape[0] == 2 * (64 + 2 * 16 + 4) + 4


def test_filters_and_pooling(run: str, image: str, tmp_path: pathlib.Path, capfd) -> None:
    output = tmp_path / "sheet.png"
    assert main(["show", "filters", image, "-o", str(output)]) == 0
    assert "6 filters of 3x3 on 30x20 pixels" in capfd.readouterr().out
    before = sheet(output)
    assert before.shape[0] == 3 * (100 + 4 * 16 + 4) + 4
    np.testing.assert_array_equal(before[6:104:5, 6:154:5], cv2.imread(image))
    assert main(["show", "filters", run, "-o", str(output)]) == 0
    assert "conv1.conv.kernel: 8 filters of 3x3 (checkpoint of step 0)" in capfd.readouterr().out
    assert sheet(output).shape[:2] == (3 * (33 + 16 + 4) + 4, 3 * (33 + 4) + 4)
    assert main(["show", "pooling", image, "-o", str(output), "--size", "5"]) == 0
    pooled = sheet(output)
    assert pooled.shape[0] == 100 + 2 * 16 + 4 + 4
    width = (pooled.shape[1] - 4) // 4
    largest = pooled[4:104, 4 + width : 154 + width]
    tiles = np.asarray(cv2.imread(image)).reshape(4, 5, 6, 5, 3).max((1, 3))
    np.testing.assert_array_equal(largest[::25, ::25], tiles)


def test_pooling_of_an_image_that_its_windows_do_not_fill(tmp_path: pathlib.Path) -> None:
    image, output = str(tmp_path / "image.png"), tmp_path / "sheet.png"
    assert cv2.imwrite(image, np.zeros((95, 320, 3), np.uint8))
    assert main(["show", "pooling", image, "-o", str(output), "--size", "16"]) == 0
    pooled = sheet(output)
    scale = (pooled.shape[0] - 2 * 16 - 4 - 4) // 95
    width = (pooled.shape[1] - 4) // 4
    largest = pooled[4 : 4 + 95 * scale, 4 + width : 4 + width + 320 * scale]
    assert not largest[: 80 * scale].any()  # five windows of 16 pixels
    assert (largest[80 * scale :] == 255).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show"], "jaxres show needs a command"),
        (["show", "attenton"], "did you mean 'attention'"),
        (["show", "mistakes"], "jaxres show mistakes needs PATH: Run directory"),
        (["show", "mistakes", "nowhere"], "'nowhere' is not a run directory"),
        (["show", "mistakes", "RUN", "--count", "0"], "--count is 0; allowed: 1 or more"),
        (["show", "mistakes", "RUN", "--checkpoint", "7"], "allowed: best, last, 0"),
        (["show", "mistakes", "RUN", "-o", "x.jpg"], "allowed: a name ending in .png"),
        (["show", "mistakes", "RUN", "-o", "no/x.png"], "cannot write 'no/x.png'"),
        (["show", "mistakes", "RUN", "--data.canvs", "9"], "did you mean '--data.canvas'"),
        (["show", "attention", "RUN", "no.png"], "no image at 'no.png'"),
        (["show", "attention", "RUN", "RUN/lock"], "no image at"),
        (["show", "attention", "RUN", "IMAGE", "--label-of", "true"], "--label-of true is given"),
        (["show", "attention", "RUN", "IMAGE", "--model.head", "flatten"], "another network"),
        (["show", "attention", "RUN", "--count", "-1"], "--count is -1"),
        (["show", "attention", "RUN", "--method", "cam"], "'grad_cam'"),
        (["show", "attention", "RUN", "--layer", "conv3"], "did you mean 'conv2'"),
        (["show", "attention", "RUN", "--method", "occlusion", "--patch", "40"], "--patch is 40"),
        (["show", "filters"], "jaxres show filters needs PATH"),
        (["show", "filters", "nowhere"], "no image or run directory at 'nowhere'"),
        (["show", "filters", "."], "'.' is not a run directory"),
        (["show", "filters", "text.png"], "text.png is not a"),
        (["show", "pooling", "nowhere.png"], "cannot read nowhere.png: No such file"),
        (["show", "pooling", "IMAGE", "--size", "21"], "--size is 21; allowed here: 2 to 16"),
        (["show", "pooling", "IMAGE", "-o", "x"], "allowed: a name ending in .png"),
    ],
)
def test_mistakes_are_one_line_and_leave_no_file(
    words: list[str],
    message: str,
    run: str,
    image: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("no picture")
    given = [word.replace("RUN", run).replace("IMAGE", image) for word in words]
    assert message in fails(capfd, given)
    assert {path.name for path in tmp_path.iterdir()} == {"image.png", "text.png"}


@pytest.mark.slow
def test_a_fully_connected_network_has_no_maps(tmp_path: pathlib.Path, capfd, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ("--model.name=handbook_mlp", "--data.canvas=28")
    folder = str(save(tmp_path / "run", *flags))
    assert "allowed: --method occlusion" in fails(capfd, ["show", "attention", folder])
    assert "it is fully connected" in fails(capfd, ["show", "filters", folder])
    assert main(["show", "attention", folder, "--method", "occlusion", "--count", "1"]) == 0
    assert sheet(tmp_path / "attention.png").any()


@pytest.mark.slow
def test_weights_that_are_not_finite(tmp_path: pathlib.Path, capfd, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)

    def spoil(params: Any) -> None:
        params["head"]["linear"]["bias"] = params["head"]["linear"]["bias"].at[0].set(np.nan)

    folder = str(save(tmp_path / "run", change=spoil))
    for command in ("mistakes", "attention"):
        assert main(["show", command, folder]) == 2
        assert "not finite: its weights cannot be used" in capfd.readouterr().err
    assert "gives a loss that is not finite" in fails(capfd, ["evaluate", folder, "--json"])
    sweep = ["evaluate", folder, "--sweep", "data.digit_side", "8", "-o", "sweep.json"]
    assert "gives a loss that is not finite" in fails(capfd, sweep)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
