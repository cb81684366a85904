"""`jaxres export`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from jaxres.config import recipe as recipes
from jaxres.config.recipe import ShortO
from jaxres.runtime.errors import InputError
from jaxres.runtime.screen import quiet_libraries


@dataclasses.dataclass(frozen=True)
class Export:
    """Write a checkpoint for PyTorch, as a program that runs without JaxRes, or its model card."""

    run_dir: Positional[Path]
    """Run directory of `jaxres train`, or of imported weights."""
    output: Annotated[Path | None, ShortO] = None
    """File to write, as model.safetensors or model.stablehlo."""
    format: Literal["safetensors", "stablehlo"] = "safetensors"
    """`safetensors`: the weights; `stablehlo`: network, weights and normalisation as a program for
    CPU, CUDA and TPU, which `jax.export.deserialize` loads."""
    layout: Literal["torchvision", "jaxres"] = "torchvision"
    """Names and axes of safetensors: torchvision's network loads the first."""
    checkpoint: str = "best"
    """`best`, `last` or the number of a step."""
    card: Path | None = None
    """Markdown file for a model card: data, recipe, metrics, versions."""


def export(words: Sequence[str]) -> int:
    """`jaxres export`."""
    args = recipes.parse(Export, words, prog="jaxres export")
    if args.output is None and args.card is None:
        raise InputError("jaxres export has nothing to write; give -o FILE, --card FILE or both")
    quiet_libraries()
    from jaxres.weights import exporting

    if args.card is not None:
        exporting.write_card(args.run_dir, args.card, which=args.checkpoint)
        print(f"written: {args.card}")
    if args.output is None:
        return 0
    if args.format == "stablehlo":
        exporting.export_program(args.run_dir, args.output, which=args.checkpoint)
        print(f"written: {args.output}")
        return 0
    count = exporting.export_weights(
        args.run_dir, args.output, which=args.checkpoint, layout=args.layout
    )
    print(f"written: {args.output} ({count} arrays)")
    return 0
