"""Imported weights as a run directory: written whole, evaluated, trained on."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from jax.sharding import NamedSharding, PartitionSpec

from jaxres.checkpoint import init_from
from jaxres.cli.main import main
from jaxres.config import recipe
from jaxres.data import prepare
from jaxres.distributed.mesh import make_mesh
from jaxres.evaluation import run
from jaxres.models import build
from jaxres.runtime.errors import InputError
from jaxres.weights import importing
from jaxres.weights.importing import import_weights
from tests.weights import written

MODEL = "cifar_resnet20"
QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"
SMALL = [f"--model.name={MODEL}", "--data.canvas=32", "--data.digit-side=32"]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    ours = written.random_weights(MODEL)
    return written.save_torch(tmp_path / "w.pth", written.as_torchvision(MODEL, ours))


def test_what_is_written(tmp_path: Path, weights: Path):
    import_weights(weights, MODEL, tmp_path / "a" / "out")
    out = tmp_path / "a" / "out"
    assert {path.name for path in out.iterdir()} == {"config.yaml", "checkpoints"}
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["model"]["name"] == MODEL
    data = config["data"]
    assert (data["dataset"], data["composition"], data["canvas"]) == ("cifar10", "plain", 32)
    assert data["mean"] == [0.485, 0.456, 0.406]
    assert data["std"] == [0.229, 0.224, 0.225]
    checkpoints = run.open_run(out)
    assert checkpoints.read(0, "config") == config
    source = checkpoints.read(0, "progress")["source"]
    checkpoints.close()
    digest = importing._sha256(weights)
    wanted = {"file": "w.pth", "sha256": digest, "format": "pytorch", "new_head": False}
    assert source == wanted


@pytest.mark.slow
def test_evaluation_and_training_take_it(tmp_path: Path, weights: Path, capfd):
    out = tmp_path / "out"
    assert main(["import-weights", str(weights), "--model", MODEL, "-o", str(out)]) == 0
    assert (
        "cifar_resnet20 of pytorch, with the file's head for 10 classes" in capfd.readouterr().out
    )
    digits = ["--data.dataset", "digits", "--train.limit-eval-examples", "20"]
    assert main(["evaluate", str(out), "--json", *digits]) == 0
    result = json.loads(capfd.readouterr().out)
    assert (result["examples"], result["checkpoint"], result["dataset"]) == (20, 0, "digits")

    assert main(["train", str(QUICKSTART), *SMALL, "--output-dir", str(out)]) == 2
    assert "holds imported weights, not a run: give it as model.init_from" in capfd.readouterr().err
    config = recipe.load(QUICKSTART, [*SMALL, "--model.init-from", str(out)])
    net = build.network(config, classes=10)
    sharding = NamedSharding(make_mesh(1), PartitionSpec())
    taken = init_from.load(config, net.params, net.stats, sharding)
    assert not taken.new_head
    assert taken.normalisation["mean"] == [0.485, 0.456, 0.406]
    kernel = written.random_weights(MODEL)["head.linear.kernel"]
    np.testing.assert_array_equal(taken.params["head"]["linear"]["kernel"], kernel)


def test_own_inputs_are_stored(tmp_path: Path, weights: Path, capfd):
    out = tmp_path / "out"
    words = ["import-weights", str(weights), "--model", MODEL, "--output", str(out)]
    assert main([*words, "--mean", "0.1", "0.2", "0.3"]) == 2
    assert "--mean and --std belong together" in capfd.readouterr().err
    assert main([*words, "--mean", "0.1", "0.2", "0.3", "--std", "0", "1", "1"]) == 2
    assert "data.std is (0.0, 1.0, 1.0); allowed: values above 0" in capfd.readouterr().err
    assert not out.exists()
    assert main([*words, "--mean", "0.1", "0.2", "0.3", "--std", "0.5", "1", "1"]) == 0
    data = yaml.safe_load((out / "config.yaml").read_text())["data"]
    assert (data["mean"], data["std"]) == ([0.1, 0.2, 0.3], [0.5, 1.0, 1.0])


def test_a_folder_in_use_is_refused(tmp_path: Path, weights: Path):
    with pytest.raises(InputError, match=r"output '.*' already holds something; allowed: a new"):
        import_weights(weights, MODEL, tmp_path)
    with pytest.raises(InputError, match="already holds something"):
        import_weights(weights, MODEL, weights)
    with pytest.raises(InputError, match=r"cannot write '.*': Not a directory"):
        import_weights(weights, MODEL, weights / "out")
    (tmp_path / "empty").mkdir()
    import_weights(weights, MODEL, tmp_path / "empty")
    assert (tmp_path / "empty" / "config.yaml").is_file()


def test_a_failure_leaves_nothing(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch):
    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(importing, "write_whole", fails)
    with pytest.raises(InputError, match=r"cannot write '.*out': No space left on device"):
        import_weights(weights, MODEL, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]


@pytest.mark.slow
@pytest.mark.parametrize("depth", [32, 44, 56, 110])
def test_other_depths_of_the_cifar_networks(tmp_path: Path, depth: int):
    model = f"cifar_resnet{depth}"
    ours = written.random_weights(model)
    path = written.save_torch(tmp_path / "w.th", written.as_torchvision(model, ours), in_zip=False)
    words = ["import-weights", str(path), "--model", model, "-o", str(tmp_path / "out")]
    assert main(words) == 0
    config = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert (config["model"]["name"], config["data"]["dataset"]) == (model, "cifar10")


@pytest.mark.slow
def test_the_published_accuracy(original: Callable[[str], Path], tmp_path: Path):
    """Published test error 8.27 %."""
    prepare.prepare(
        "cifar10",
        from_dir=original("cifar10"),
        data_dir=tmp_path / "data",
        partial=True,
        progress=False,
    )
    file = original("weights") / "resnet20-12fca82f.th"
    import_weights(file, MODEL, tmp_path / "out")
    result = run.evaluate(tmp_path / "out", flags=["--data.data-dir", str(tmp_path / "data")])
    assert result["examples"] == 10_000
    assert result["accuracy"] == pytest.approx(0.9173, abs=5e-4)
