"""A checkpoint's weights for PyTorch, its network as a program, and its model card."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxres.config import DataConfig
from jaxres.data.inputs import normalise
from jaxres.evaluation.run import Opened, open_checkpoint
from jaxres.models import registry
from jaxres.models.build import abstract_network
from jaxres.models.pure import abstract_net, flatten
from jaxres.ops import target
from jaxres.runtime.errors import InputError, find
from jaxres.runtime.files import refusing, require_writable, write_whole
from jaxres.weights import torchvision

PLATFORMS = ("cpu", "cuda", "tpu")
Arrays = dict[str, np.ndarray]


def export_weights(
    run_dir: Path, output: Path, *, which: str = "best", layout: str = "torchvision"
) -> int:
    """Write a checkpoint's weights as a safetensors file; returns the number of arrays.

    Args:
        run_dir: A run, or imported weights.
        output: The file.
        which: `best`, `last` or a step.
        layout: `torchvision` for its names and axes, whose `load_state_dict` takes them; `jaxres`
            for ours, as `params.NAME` and `stats.NAME`.

    Raises:
        InputError: no such checkpoint, torchvision has no such network, or the file cannot be
            written.
    """
    _require_package("safetensors", output)
    from safetensors.numpy import save

    require_writable(output)
    arrays_of = find("layout", layout, LAYOUTS)
    arrays = arrays_of(open_checkpoint(run_dir, which))
    with refusing(output):
        write_whole(output, save(arrays, {"format": "pt"}))
    return len(arrays)


def _require_package(name: str, output: Path) -> None:
    if importlib.util.find_spec(name) is None:
        raise InputError(
            f"writing '{output}' needs the package {name}, which is not installed: "
            "pip install '.[weights]'"
        )


def _ours(opened: Opened) -> Arrays:
    return {
        f"{part}.{name}": np.ascontiguousarray(leaf)
        for part in ("params", "stats")
        for name, leaf in flatten(opened.weights[part]).items()
    }


def _torchvisions(opened: Opened) -> Arrays:
    name = opened.config.model.name
    layout = torchvision.layout(name)
    if layout is None:
        known = ", ".join(each for each in registry.list_models() if torchvision.layout(each))
        raise InputError(
            f"'{opened.run_dir}' is of {name}, which torchvision has not; allowed with --layout "
            f"torchvision: {known}; --layout jaxres writes any"
        )
    leaves = {**flatten(opened.weights["params"]), **flatten(opened.weights["stats"])}
    _require_published_shapes(opened, {each: leaf.shape for each, leaf in leaves.items()})
    arrays = {}
    for each, leaf in leaves.items():
        theirs = layout.theirs(each)
        arrays[theirs] = np.ascontiguousarray(torchvision.translate_back(each, np.asarray(leaf)))
        if each.endswith(".mean"):  # their batch norm counts batches, to no effect here
            counter = theirs.rpartition(".")[0] + torchvision.COUNTER
            arrays[counter] = np.zeros((), np.int64)
    return arrays


def _require_published_shapes(opened: Opened, shapes: dict[str, tuple[int, ...]]) -> None:
    """Refuse a network that options made another than torchvision's."""
    name, classes = opened.config.model.name, opened.outputs
    plain = abstract_net(name, classes=classes, image_size=registry.smallest_image(name))
    wanted = {
        each: leaf.shape
        for part in (plain.params, plain.stats)
        for each, leaf in flatten(part).items()
    }
    if shapes != wanted:
        differing = sorted(
            each for each in shapes.keys() | wanted.keys() if shapes.get(each) != wanted.get(each)
        )
        raise InputError(
            f"'{opened.run_dir}' is of a {name} with other options than torchvision's (as at "
            f"{differing[0]}); allowed: --layout jaxres"
        )


LAYOUTS: dict[str, Callable[[Opened], Arrays]] = {"torchvision": _torchvisions, "jaxres": _ours}


def export_program(run_dir: Path, output: Path, *, which: str = "best") -> None:
    """Write a checkpoint's network as a StableHLO program with its weights, by `jax.export`.

    `jax.export.deserialize(bytes).call(images)` gives the logits (float32, n classes) of images
    (uint8, n side side 3) of the run's size, of any number; the normalisation is in it. It runs on
    CPU, CUDA and TPU, without JaxRes.

    Raises:
        InputError: no such checkpoint, or the file cannot be written.
    """
    _require_package("flatbuffers", output)
    require_writable(output)
    opened = open_checkpoint(run_dir, which)
    config = opened.config
    net = abstract_network(config, classes=opened.outputs)
    weights = jax.device_get(opened.weights)

    def logits(images: Any) -> Any:
        pixels = normalise(config, images)
        return net.apply(weights["params"], weights["stats"], pixels, train=False)[0]

    side = config.data.image_size
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, side, side, 3), np.uint8)
    with target.target_backend("portable"):  # no backend's own way of computing anything
        exported = jax.export.export(jax.jit(logits), platforms=PLATFORMS)(images)
    with refusing(output):
        write_whole(output, bytes(exported.serialize()))


def write_card(run_dir: Path, output: Path, *, which: str = "best") -> None:
    """Write a model card in Markdown: data, network, recipe, metrics, versions.

    Raises:
        InputError: no such checkpoint, or the file cannot be written.
    """
    require_writable(output)
    opened = open_checkpoint(run_dir, which)
    with refusing(output):
        write_whole(output, _card(opened))


def _card(opened: Opened) -> str:
    config = opened.config
    data, summary = config.data, _summary(opened.run_dir)
    classes = opened.classes or tuple(map(str, range(opened.outputs)))
    name = config.model.name
    parameters = sum(leaf.size for leaf in jax.tree.leaves(opened.weights["params"]))
    mean, std = list(data.mean or (0, 0, 0)), list(data.std or (1, 1, 1))
    lines = [
        f"# {name} on {data.dataset}",
        "",
        f"A {name} of {parameters:,} parameters for {len(classes)} classes, trained with JaxRes; "
        f"checkpoint of step {opened.step}.",
        "",
        "## Use",
        "",
        f"- Images: {data.image_size} x {data.image_size} pixels, red, green and blue from 0 to "
        f"255, as `(pixels / {data.divisor} - {mean}) / {std}`.{_cut(data)}",
        f"- Classes: {', '.join(classes)}.",
    ]
    if test := summary.get("test"):
        lines += ["", "## Test", "", "| metric | value |", "|---|---|"]
        lines += [
            f"| {key.replace('_', ' ')} | {value:.4f} |"
            for key, value in test.items()
            if isinstance(value, float)
        ]
        lines += ["", f"Of {test['examples']:,} images that it was not trained or chosen by."]
    lines += ["", "## Data", "", f"{data.dataset}, composition `{data.composition}`."]
    for split, facts in opened.data.items():
        lines.append(f"- {split}: {facts['examples']:,} images (checksum {facts['checksum']})")
    if summary:
        versions = ", ".join(f"{name} {each}" for name, each in summary["versions"].items())
        lines += [
            "",
            "## Training",
            "",
            f"- Command: `{summary['command']}`",
            f"- With {versions}.",
        ]
        if commit := summary.get("commit"):
            lines.append(f"- Commit {commit}.")
    settings = (opened.run_dir / "config.yaml").read_text(encoding="utf-8")
    return "\n".join([*lines, "", "Settings:", "", "```yaml", settings.rstrip(), "```", ""])


def _cut(data: DataConfig) -> str:
    """How the square comes from a photograph, as a sentence to add."""
    if data.composition != "plain":
        return ""
    if data.short_side is None:
        return " Of a photograph it is the square in the middle, resized."
    return f" A photograph is resized to a short side of {data.short_side}, its middle cut out."


def _summary(run_dir: Path) -> dict[str, Any]:
    """What the end of a run wrote; nothing for imported weights, or a run that goes on."""
    try:
        return json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
