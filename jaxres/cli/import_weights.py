"""`jaxres import-weights`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from jaxres.config import recipe as recipes
from jaxres.config.recipe import ShortO
from jaxres.runtime.errors import InputError
from jaxres.runtime.screen import quiet_libraries, say


@dataclasses.dataclass(frozen=True)
class ImportWeights:
    """Make a checkpoint of PyTorch, safetensors or Keras weights (see docs/weights.md)."""

    file: Positional[Path]
    """.pth, .pt, .th, .safetensors, .h5, .weights.h5 or .keras."""
    model: str
    """Whose weights they are (see `jaxres models`)."""
    output: Annotated[Path, ShortO]
    """New folder, for `jaxres evaluate` and `model.init_from`."""
    classes: int | None = None
    """Outputs of the last layer, where the file has none; default: 10 for CIFAR, else 1000."""
    key: str | None = None
    """Entry of a PyTorch file whose weights to take; default: the first with a usual name."""
    mean: tuple[float, float, float] | None = None
    """Subtracted from red, green and blue over 255; default: as the published weights expect."""
    std: tuple[float, float, float] | None = None
    """Then divided by; default: as the published weights expect."""


def import_weights(words: Sequence[str]) -> int:
    """`jaxres import-weights`."""
    args = recipes.parse(ImportWeights, words, prog="jaxres import-weights")
    if (args.mean is None) != (args.std is None):
        raise InputError("--mean and --std belong together: give both, or neither")
    quiet_libraries()
    from jaxres.weights import importing
    from jaxres.weights.layout import Inputs

    inputs = Inputs(args.mean, args.std) if args.mean and args.std else None
    made = importing.import_weights(
        args.file, args.model, args.output, classes=args.classes, inputs=inputs, key=args.key
    )
    for note in made.notes:
        say(f"note: {note}")
    head = "a fresh head" if made.new_head else "the file's head"
    print(f"{args.model} of {made.format}, with {head} for {made.classes} classes")
    print(f"written: {args.output}")
    return 0
