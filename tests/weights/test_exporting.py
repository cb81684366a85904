"""Weights, programs and cards that leave JaxRes."""

import json
import os
import pathlib
import re
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxres
from jaxres.checkpoint.manager import Checkpoints
from jaxres.cli.main import main
from jaxres.config import Config, DataConfig, ModelConfig, to_dict
from jaxres.evaluation.run import open_checkpoint
from jaxres.models import registry
from jaxres.models.build import network
from jaxres.models.pure import abstract_net, flatten
from jaxres.weights import exporting, torchvision
from jaxres.weights.importing import import_weights
from tests.marked import slow

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
FAMILIES = ["resnet18", "wide_resnet50_2", "vgg11_bn", "mobilenet_v2", "shufflenet_v2_x0_5"]


def saved(folder: pathlib.Path, model: str, *, canvas: int = 32, **options) -> pathlib.Path:
    """A run directory of a network whose weights, statistics too, are random."""
    side = max(canvas, registry.smallest_image(model))
    config = Config(
        data=DataConfig(composition="plain", canvas=side, mean=MEAN, std=STD),
        model=ModelConfig(name=model, **options),
    )
    net = network(config, classes=7)
    random = np.random.default_rng(0)
    stats = jax.tree.map(
        lambda leaf: jnp.asarray(random.uniform(0.5, 1.5, leaf.shape), jnp.float32), net.stats
    )
    checkpoints = Checkpoints(folder / "checkpoints", config.checkpoint)
    progress = {"history": [], "best": None}
    state = {"params": net.params, "stats": stats}
    checkpoints.save(0, state, progress=progress, config=to_dict(config))
    checkpoints.wait()
    checkpoints.close()
    (folder / "config.yaml").write_text("{}\n")
    return folder


@pytest.mark.parametrize("model", ["resnet18", slow("vgg11_bn"), "cifar_resnet20"])
def test_what_is_exported_is_imported_as_it_was(tmp_path: pathlib.Path, model: str) -> None:
    run = saved(tmp_path / "run", model)
    exporting.export_weights(run, tmp_path / "model.safetensors")
    import_weights(tmp_path / "model.safetensors", model, tmp_path / "back")
    chex.assert_trees_all_equal(
        open_checkpoint(run, "last").weights, open_checkpoint(tmp_path / "back", "last").weights
    )


def test_every_array_of_every_family_goes_there_and_back() -> None:
    for model in registry.list_models():
        layout = torchvision.layout(model)
        if layout is None:
            continue
        options = {"classes": 7, "image_size": registry.smallest_image(model)}
        net = abstract_net(model, **options)
        for name, leaf in {**flatten(net.params), **flatten(net.stats)}.items():
            if leaf.size > 1_000_000:
                continue
            array = np.arange(leaf.size, dtype=np.float32).reshape(leaf.shape)
            back = layout.translate(name, torchvision.translate_back(name, array))
            np.testing.assert_array_equal(back, array)


@pytest.mark.reference
@pytest.mark.parametrize("model", FAMILIES)
def test_torchvision_loads_it_and_sees_the_same(
    tmp_path: pathlib.Path, torchvision_package, model: str
) -> None:
    import torch  # pyright: ignore[reportMissingImports]
    from safetensors.torch import load_file

    run = saved(tmp_path / "run", model, canvas=64)
    exporting.export_weights(run, tmp_path / "model.safetensors")
    theirs = torchvision_package.models.get_model(model, num_classes=7)
    theirs.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=True)
    classifier = jaxres.load(run, "last")
    side = classifier.config.data.image_size
    images = np.random.default_rng(1).integers(0, 256, (4, side, side, 3), np.uint8)
    data = classifier.config.data
    pixels = (images / 255 - np.array(data.mean)) / np.array(data.std)
    with torch.no_grad():
        given = torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32)
        expected = theirs.eval()(given).numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(classifier.logits(images), expected, atol=1e-4 * max(scale, 1))


@pytest.mark.parametrize("network", ["all_cnn_small", slow("cifar_resnet20")])
def test_a_program_runs_without_jaxres(network: str, tmp_path: pathlib.Path) -> None:
    run = saved(tmp_path / "run", network)
    words = ["jaxres", "export", str(run), "-o", str(tmp_path / "p"), "--format", "stablehlo"]
    # In a process of its own: annotations, checked here, know no batch of any size.
    subprocess.run([sys.executable, "-m", *words], check=True)
    images = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    program = """
import sys, numpy as np, jax
exported = jax.export.deserialize(open("p", "rb").read())
images = np.load("images.npy")
np.save("logits.npy", exported.call(images))
assert np.asarray(exported.call(images[:2])).shape == (2, 7)
assert exported.platforms == ("cpu", "cuda", "tpu")
assert not any(name.startswith("jaxres") for name in sys.modules)
"""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, env=environment)
    expected = jaxres.load(run, "last").logits(images)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, rtol=1e-3, atol=1e-3)


def test_a_card_tells_of_the_run(runs: list[pathlib.Path], tmp_path: pathlib.Path) -> None:
    run = runs[0]
    assert main(["export", str(run), "--card", str(tmp_path / "card.md")]) == 0
    card = (tmp_path / "card.md").read_text()
    summary = json.loads((run / "summary.json").read_text())
    assert f"| accuracy | {summary['test']['accuracy']:.4f} |" in card
    assert summary["command"] in card
    assert summary["data"]["train"]["checksum"] in card
    assert "learning_rate: 0.003" in card


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "has nothing to write; give -o FILE, --card FILE or both"),
        (["-o", "no/such/folder/m"], "cannot write 'no/such/folder/m'"),
        (["-o", "m", "--checkpoint", "3"], "checkpoint"),
        (["-o", "m"], "of handbook_mlp, which torchvision has not; allowed .* resnet18"),
    ],
)
def test_what_cannot_be_exported(
    tmp_path: pathlib.Path,
    words: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = saved(tmp_path / "run", "handbook_mlp")
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run), *words]) == 2
    said = capsys.readouterr().err
    assert re.search(reason, said), said
    assert not (tmp_path / "m").exists()


def test_options_that_torchvision_has_not(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = saved(tmp_path / "run", "resnet18", stem="small")
    output = tmp_path / "m.safetensors"
    assert main(["export", str(run), "-o", str(output)]) == 2
    assert "with other options than torchvision's (as at stem.conv.kernel)" in (
        capsys.readouterr().err
    )
    assert main(["export", str(run), "-o", str(output), "--layout", "jaxres"]) == 0
    from safetensors.numpy import load_file

    assert "params.stem.conv.kernel" in load_file(output)
