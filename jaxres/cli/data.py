"""`jaxres data list`, `prepare` and `preview`."""

import dataclasses
import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from jaxres.config import Split
from jaxres.config import recipe as recipes
from jaxres.config.recipe import DEFAULTS, Settings, ShortO, split_settings
from jaxres.runtime.errors import InputError
from jaxres.runtime.screen import print_table, quiet_libraries


@dataclasses.dataclass(frozen=True)
class DataList:
    """List the datasets JaxRes knows, and which are ready."""

    data_dir: str = ""
    """Folder of prepared datasets; empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    json: bool = False
    """Print one JSON object and nothing else."""
    imports: tuple[str, ...] = ()
    """Modules of your own to import first."""


def data_list(words: Sequence[str]) -> int:
    """`jaxres data list`: a table or JSON."""
    args = recipes.parse(DataList, words, prog="jaxres data list")
    from jaxres.data.backgrounds import photographs
    from jaxres.data.datasets import registry
    from jaxres.data.datasets.paths import data_dir

    folder = data_dir(args.data_dir)
    rows = registry.describe(folder) + photographs.describe(folder)
    if args.json:
        listed = [row._asdict() for row in rows]
        print(json.dumps({"data_dir": str(folder), "datasets": listed}))
        return 0
    columns = ("name", "ready", "examples", "title")
    print_table(columns, ([getattr(row, key) for key in columns] for row in rows))
    for row in rows:
        if row.problem:
            print(f"\n{row.name}: {row.problem}")
        if row.partial:
            print(f"\n{row.name} is partial: {row.partial}")
    print(f"\nprepared datasets live in {folder}")
    return 0


@dataclasses.dataclass(frozen=True)
class DataPrepare:
    """Prepare a dataset: write it as a TFDS dataset of ArrayRecord files."""

    name: Annotated[Positional[str], tyro.conf.arg(metavar="DATASET")]
    """Which (see `jaxres data list`); with --layout a name of your own."""
    from_dir: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """Folder with the published files (or their archive); without it they are downloaded."""
    layout: str | None = None
    """How your own images lie in --from: `image-folder` (a folder per class, below train, val and
    test if there are such; archives too) or `csv` (a file of file names and labels)."""
    short_side: int | None = None
    """Shrink your own larger images to this short side in pixels, as JPEG."""
    quality: int = 90
    """Quality of that JPEG, 1 to 100."""
    data_dir: str = ""
    """Folder of prepared datasets; empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    photo_side: int = 256
    """Photographs are shrunk to this short side in pixels (never enlarged)."""
    partial: bool = False
    """Accept an incomplete cifar10 or flowers; the dataset is then marked partial."""
    skip_bad: bool = False
    """Leave out flowers, photographs or images of your own that cannot be used, and say which."""
    overwrite: bool = False
    """Replace the dataset if it is already prepared."""
    imports: tuple[str, ...] = ()
    """Modules of your own to import first."""


def data_prepare(words: Sequence[str]) -> int:
    """`jaxres data prepare`."""
    args = recipes.parse(DataPrepare, words, prog="jaxres data prepare")
    quiet_libraries()
    # As Ctrl-C does, SIGTERM unwinds, so that nothing half-written stays.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from jaxres.data import prepare
    from jaxres.data.datasets.paths import DEFAULT, data_dir

    folder = data_dir(args.data_dir)
    if folder == Path(DEFAULT):
        raise InputError("there is no home folder to prepare data in: give --data-dir")
    path = prepare.prepare(
        args.name,
        from_dir=args.from_dir,
        data_dir=folder,
        photo_side=args.photo_side,
        partial=args.partial,
        skip_bad=args.skip_bad,
        overwrite=args.overwrite,
        layout=args.layout,
        short_side=args.short_side,
        quality=args.quality,
    )
    print(f"ready: {path}")
    return 0


@dataclasses.dataclass(frozen=True)
class DataPreview:
    """Draw a contact sheet of a recipe's images with their labels."""

    recipe: Positional[Path]
    """YAML file of differences from the defaults, or the name of a recipe (`jaxres recipes`)."""
    output: Annotated[Path, ShortO] = Path("preview.png")
    """PNG file to write."""
    split: Split = "train"
    """Split of the dataset."""
    count: int = 64
    """Number of images."""
    settings: Settings = DEFAULTS


def data_preview(words: Sequence[str]) -> int:
    """`jaxres data preview`."""
    own, flags = split_settings(words)
    args = recipes.parse(DataPreview, own, prog="jaxres data preview")
    config = recipes.load(args.recipe, flags, prog="jaxres data preview")
    if args.count < 1:
        raise InputError(f"--count is {args.count}; allowed: 1 or more")
    quiet_libraries()
    from jaxres.explain import preview

    preview.write_sheet(config, args.output, split=args.split, count=args.count)
    print(f"written: {args.output}")
    return 0
