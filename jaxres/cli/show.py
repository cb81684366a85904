"""`jaxres show mistakes`, `attention`, `filters` and `pooling`."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional

from jaxres.config import Split
from jaxres.config import recipe as recipes
from jaxres.config.recipe import DEFAULTS, Settings, ShortO, split_settings
from jaxres.runtime.errors import InputError
from jaxres.runtime.screen import quiet_libraries

if TYPE_CHECKING:  # JAX is not imported for --help
    from jaxres.evaluation.run import Loaded
    from jaxres.explain.looking import Look, Method

METHODS: "dict[str, tuple[Method, ...]]" = {
    "grad_cam": ("grad_cam",),
    "layer_cam": ("layer_cam",),
    "occlusion": ("occlusion",),
    "both": ("grad_cam", "occlusion"),
    "all": ("grad_cam", "layer_cam", "occlusion"),
}


@dataclasses.dataclass(frozen=True)
class ShowMistakes:
    """Draw the images that a run's checkpoint gets wrong, most confident first."""

    run_dir: Positional[Path]
    """Run directory of `jaxres train`."""
    output: Annotated[Path, ShortO] = Path("mistakes.png")
    """PNG file to write."""
    checkpoint: str = "best"
    """`best`, `last` or the number of a step."""
    split: Split = "test"
    """Split of the dataset."""
    count: int = 36
    """Number of images on the sheet, at most."""
    json: bool = False
    """Print one JSON object with all mistakes and nothing else."""
    settings: Settings = DEFAULTS


def show_mistakes(words: Sequence[str]) -> int:
    """`jaxres show mistakes`: a sheet and how many there are, or all of them as JSON."""
    own, flags = split_settings(words)
    args = recipes.parse(ShowMistakes, own, prog="jaxres show mistakes")
    _require_count(args.count)
    quiet_libraries()
    from jaxres.evaluation import run
    from jaxres.explain import gallery
    from jaxres.explain.sheet import require_png_path, write_png

    require_png_path(args.output)
    loaded = run.load(args.run_dir, which=args.checkpoint, split=args.split, flags=flags)
    mistakes = gallery.find_mistakes(loaded, shown=True)
    rows = mistakes.rows()
    drawn = min(args.count, len(rows))
    if drawn:
        write_png(args.output, gallery.mistakes_sheet(loaded, mistakes, count=drawn))
    if args.json:
        found = {"mistakes": rows, "wrong": len(rows), "examples": mistakes.examples}
        written = str(args.output) if drawn else None
        print(json.dumps({**found, "checkpoint": loaded.step, "written": written}))
        return 0
    if not rows:
        print(f"no mistakes: all {mistakes.examples:,} examples of {args.split} are right")
        print("nothing is written")
        return 0
    share = len(rows) / mistakes.examples
    print(f"{len(rows):,} of {mistakes.examples:,} examples of {args.split} wrong ({share:.2%})")
    captions = "TRUE as PREDICTED PROBABILITY"
    print(f"written: {args.output} (the {drawn:,} most confident, as {captions})")
    return 0


@dataclasses.dataclass(frozen=True)
class ShowAttention:
    """Draw where a run's network looks: Grad-CAM, LayerCAM or occlusion, beside each image."""

    run_dir: Positional[Path]
    """Run directory of `jaxres train`, or with images the output of `jaxres import-weights`."""
    images: Positional[tuple[Path, ...]] = ()
    """PNG or JPEG files, resized to the run's images; without any the first ones of the split."""
    output: Annotated[Path, ShortO] = Path("attention.png")
    """PNG file to write."""
    method: Literal["grad_cam", "layer_cam", "occlusion", "both", "all"] = "grad_cam"
    """Gradients at a layer's maps, averaged (`grad_cam`) or place by place (`layer_cam`), or a grey
    patch that hides one place after another (`occlusion`); `both`: the first and the last."""
    layer: str = ""
    """Where the gradients are taken, e.g. `stages.2`; default: the last of 7x7 or more."""
    patch: int | None = None
    """Side of the grey patch in pixels; default: 1/8 of the image's."""
    label_of: Literal["predicted", "true"] = "predicted"
    """The class that the maps explain."""
    checkpoint: str = "best"
    """`best`, `last` or the number of a step."""
    split: Split = "test"
    """Split of the dataset."""
    count: int = 12
    """Number of images of the split."""
    json: bool = False
    """Print one JSON object and nothing else."""
    settings: Settings = DEFAULTS


def show_attention(words: Sequence[str]) -> int:
    """`jaxres show attention`: a sheet, and what the maps share with the digit's box if known."""
    own, flags = split_settings(words)
    args = recipes.parse(ShowAttention, own, prog="jaxres show attention")
    _require_count(args.count)
    if args.images and args.label_of == "true":
        raise InputError("--label-of true is given with images, which have no label: leave it out")
    quiet_libraries()
    from jaxres.explain import gallery, looking
    from jaxres.explain.sheet import require_png_path, write_png

    require_png_path(args.output)
    loaded = _load_images(args, flags) if args.images else _load_split(args, flags)
    count = len(args.images) or min(args.count, len(loaded.dataset))
    methods = METHODS[args.method]
    look = looking.look(
        loaded,
        range(count),
        methods=methods,
        explain=args.label_of,
        layer=args.layer,
        patch=args.patch,
        shown=True,
    )
    names = loaded.dataset.class_names
    rows = [_row(args, look, names, k) for k in range(count)]
    write_png(
        args.output,
        gallery.attention_sheet(look.images, [*look.maps.values()], [_caption(r) for r in rows]),
    )
    means = {method: float(shares.mean()) for method, shares in look.shares.items()}
    if args.json:
        inside = {**means, "chance": look.chance} if means else None
        layer = {"layer": look.layer or None, "positions": look.positions if look.layer else None}
        found = {"pictures": rows, **layer, "mass_in_box": inside}
        print(json.dumps({**found, "checkpoint": loaded.step, "written": str(args.output)}))
        return 0
    if look.layer:
        print(f"layer {look.layer}: {look.positions[0]}x{look.positions[1]} positions")
    for method, mean in means.items():
        print(f"mass inside the digit's box, {method}: {mean:.3f} (by chance {look.chance:.3f})")
    print(f"written: {args.output} (each image, then {', '.join(methods)})")
    return 0


def _load_split(args: ShowAttention, flags: Sequence[str]) -> "Loaded":
    from jaxres.evaluation import run

    return run.load(args.run_dir, which=args.checkpoint, split=args.split, flags=flags)


def _load_images(args: ShowAttention, flags: Sequence[str]) -> "Loaded":
    from jaxres.evaluation import predict, run

    predict.require_files(args.images)
    opened = run.open_checkpoint(args.run_dir, args.checkpoint, flags)
    return predict.load_files(opened, args.images)


def _row(args: ShowAttention, look: "Look", names: Sequence[str], k: int) -> dict[str, Any]:
    """What `--json` tells of the k-th image."""
    if args.images:
        which: dict[str, Any] = {"file": str(args.images[k])}
    else:
        which = {"example": k, "class": names[look.labels[k]]}
    return {
        **which,
        "predicted_class": names[look.predicted[k]],
        "map_of_class": names[look.classes[k]],
        "probability": float(look.probability[k]),
        "mass_in_box": {method: float(shares[k]) for method, shares in look.shares.items()} or None,
    }


def _caption(row: dict[str, Any]) -> str:
    what = Path(row["file"]).name + "\n" if "file" in row else f"{row['class']} as "
    of = "" if row["map_of_class"] == row["predicted_class"] else f" ({row['map_of_class']}:"
    closed = ")" if of else ""
    return f"{what}{row['predicted_class']}{of} {row['probability']:.2f}{closed}"


@dataclasses.dataclass(frozen=True)
class ShowFilters:
    """Draw what 3x3 filters make of an image, or the first filters of a run's network."""

    path: Positional[Path]
    """A PNG or JPEG file, or a run directory of `jaxres train`."""
    output: Annotated[Path, ShortO] = Path("filters.png")
    """PNG file to write."""
    checkpoint: str = "best"
    """Of a run: `best`, `last` or the number of a step."""


def show_filters(words: Sequence[str]) -> int:
    """`jaxres show filters`."""
    args = recipes.parse(ShowFilters, words, prog="jaxres show filters")
    if not args.path.exists():
        raise InputError(f"no image or run directory at '{args.path}'")
    quiet_libraries()
    from jaxres.explain import filter_sheets
    from jaxres.explain.sheet import require_png_path, write_png

    require_png_path(args.output)
    if args.path.is_dir():
        sheet, summary = filter_sheets.first_filters_sheet(args.path, which=args.checkpoint)
    else:
        sheet, summary = filter_sheets.filters_sheet(args.path)
    write_png(args.output, sheet)
    print(summary)
    print(f"written: {args.output}")
    return 0


@dataclasses.dataclass(frozen=True)
class ShowPooling:
    """Draw what maximum, average and depthwise pooling make of an image, side by side."""

    image: Positional[Path]
    """A PNG or JPEG file."""
    output: Annotated[Path, ShortO] = Path("pooling.png")
    """PNG file to write."""
    size: int = 2
    """Side of a window, and the step from one to the next, in pixels."""


def show_pooling(words: Sequence[str]) -> int:
    """`jaxres show pooling`."""
    args = recipes.parse(ShowPooling, words, prog="jaxres show pooling")
    quiet_libraries()
    from jaxres.explain import filter_sheets
    from jaxres.explain.sheet import require_png_path, write_png

    require_png_path(args.output)
    write_png(args.output, filter_sheets.pooling_sheet(args.image, args.size))
    print(f"written: {args.output}")
    return 0


def _require_count(count: int) -> None:
    if count < 1:
        raise InputError(f"--count is {count}; allowed: 1 or more")
