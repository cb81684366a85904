"""A folder of images: a folder per class, below train, val and test where there are such."""

import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxres.data.datasets.dataset import Dataset, Selection, Source
from jaxres.data.own.examples import Examples, select
from jaxres.data.readers import archives, folders
from jaxres.data.readers.encoded import ImageFiles
from jaxres.runtime.errors import InputError
from jaxres.runtime.screen import say

PREFIX = "folder:"
SPLIT_FOLDERS = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
MOST_LOOKED_THROUGH = 20_000  # files, at the start of a run; larger sets are worth preparing
TOLD = 5


class Labelled(NamedTuple):
    """The image files of a dataset by split, each with its label."""

    root: Path
    class_names: tuple[str, ...]
    splits: Mapping[str, Sequence[tuple[Path, int]]]


def find(root: Path) -> Labelled:
    """The images below a folder, their classes being the names of the folders that hold them.

    The folders of classes lie at the top, or below folders `train`, `val` (or `validation`) and
    `test`, or, as an unpacked archive has them, below a folder that is all there is. Links to
    folders are followed. Classes are sorted by name, images by path.

    Raises:
        InputError: there are no images, fewer than two classes, a class without images, or images
            outside the folders of classes or splits.
    """
    paths = folders.find_images(root)
    top = folders.common_folder(root, paths, but=SPLIT_FOLDERS)
    if top != root and all(path.parent == top for path in paths):  # a folder of one class
        top = top.parent
    by_split = any(_parts(path, top)[0].lower() in SPLIT_FOLDERS for path in paths)
    found: dict[str, list[tuple[Path, str]]] = defaultdict(list)
    for path in paths:
        parts = _parts(path, top)
        split = SPLIT_FOLDERS.get(parts[0].lower()) if by_split else "train"
        inner = parts[1:] if by_split else parts
        if split is None:
            raise InputError(
                f"{path} is outside the folders train, val and test, of which {top} has some: put "
                "every image into one of them, or none"
            )
        if len(inner) < 2:
            raise InputError(
                f"{path} is in no folder of a class; allowed: {top}/"
                f"{parts[0] + '/' if by_split else ''}CLASS/IMAGE"
            )
        found[split].append((path, inner[0]))
    names = tuple(sorted({name for _, name in found.get("train", ())}))
    _require_classes(root, top, names, found, by_split=by_split)
    numbers = {name: number for number, name in enumerate(names)}
    order = [split for split in ("train", "validation", "test") if split in found]
    splits = {split: [(path, numbers[name]) for path, name in found[split]] for split in order}
    return Labelled(root, names, splits)


def _parts(path: Path, top: Path) -> tuple[str, ...]:
    return path.relative_to(top).parts


def _require_classes(
    root: Path,
    top: Path,
    names: tuple[str, ...],
    found: Mapping[str, Sequence[tuple[Path, str]]],
    *,
    by_split: bool,
) -> None:
    if len(names) == 0:
        raise InputError(f"{root} has folders {', '.join(sorted(found))} but no images in train")
    for split, members in found.items():
        if unknown := sorted({name for _, name in members} - set(names)):
            raise InputError(
                f"{root} has no training images of {_some(unknown)}, but images for {split}"
            )
    tops = [each for each in top.iterdir() if each.is_dir()] if by_split else [top]
    empty = sorted(
        str(folder.relative_to(root))
        for each in tops
        for folder in each.iterdir()
        if folder.is_dir() and folder.name not in names and not folder.name.startswith((".", "__"))
    )
    if empty:
        raise InputError(f"{root} has no images in {_some(empty)}: fill or remove them")
    if len(names) < 2:
        raise InputError(f"{root} has one class, '{names[0]}'; allowed: two or more")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - TOLD} more" if len(names) > TOLD else ""
    return ", ".join(names[:TOLD]) + more


def examples(labelled: Labelled, name: str, canvas: int) -> Examples:
    """Image files as the examples of a dataset."""
    files = [str(path) for members in labelled.splits.values() for path, _ in members]
    labels = [label for members in labelled.splits.values() for _, label in members]
    splits, first = {}, 0
    for split, members in labelled.splits.items():
        splits[split] = range(first, first + len(members))
        first += len(members)
    every = ImageFiles(files, canvas)
    return Examples(
        name, labelled.class_names, splits, np.array(labels, np.int32), every.__getitem__
    )


def warn_of_copies(labelled: Labelled) -> None:
    """Warn if a file of one split has the content of a file of another.

    Files that cannot be read are passed over: they are reported where they are needed.
    """
    sizes: dict[int, list[tuple[str, Path]]] = defaultdict(list)
    for split, members in labelled.splits.items():
        for path, _ in members:
            with contextlib.suppress(InputError):
                sizes[archives.size_of(path)].append((split, path))
    seen: dict[bytes, tuple[str, Path]] = {}
    copies = []
    for same in sizes.values():
        if len({split for split, _ in same}) < 2:
            continue
        for split, path in same:
            try:
                digest = hashlib.sha256(archives.read_bytes(path)).digest()
            except InputError:
                continue
            other_split, other = seen.setdefault(digest, (split, path))
            if other_split != split:
                copies.append((path, other))
    tell_copies(str(labelled.root), [(str(path), str(other)) for path, other in copies])


def tell_copies(where: str, copies: Sequence[tuple[str, str]]) -> None:
    """Warn of images that are in two splits, by the names of each and of its copy."""
    if copies:
        first, second = copies[0]
        say(
            f"warning: {len(copies):,} images of {where} are in two splits, as {first} and "
            f"{second}: what the network is judged by should be new to it"
        )


def load(dataset: Dataset, selection: Selection) -> Source:
    """A split of a folder of images, read when they are looked at."""
    root = Path(dataset.name.removeprefix(PREFIX)).expanduser()
    folders.require_folder(root)
    labelled = find(root)
    if selection.split == "train":
        others = folders.find_others(root)
        if others:
            say(f"note: {len(others):,} files are of a kind that is not read, as {others[0]}")
        if sum(map(len, labelled.splits.values())) <= MOST_LOOKED_THROUGH:
            warn_of_copies(labelled)
    return select(examples(labelled, dataset.name, selection.canvas), selection)


def dataset(name: str) -> Dataset:
    """The dataset that `folder:DIR` names."""
    return Dataset(name=name, title="a folder of images", load=load, photographs=True)
