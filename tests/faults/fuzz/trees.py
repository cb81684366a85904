"""Folders as values: what an input consists of, written afresh for each trial."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class Link(NamedTuple):
    """A symbolic link."""

    target: str


class Folder(NamedTuple):
    """An empty folder, also where a file is expected."""


class Pipe(NamedTuple):
    """A named pipe, which nobody writes to: opening it to read never ends."""


Entry = bytes | Link | Folder | Pipe
Tree = Mapping[str, Entry]  # by relative path


def write(tree: Tree, folder: Path) -> None:
    """Make the folder hold this and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, entry in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        match entry:
            case Link(target):
                path.symlink_to(target)
            case Folder():
                path.mkdir(exist_ok=True)
            case Pipe():
                os.mkfifo(path)
            case content:
                path.write_bytes(content)


def read(folder: Path) -> dict[str, bytes]:
    """The files below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
