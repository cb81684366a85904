"""A reader under trial: what it is given, how it is called, what its content must be."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from tests.faults.fuzz.trees import Tree


class Reader(NamedTuple):
    """`read` takes an input folder and an output folder and gives the content it accepts.

    `wrong` says what is wrong with accepted content, None if nothing.
    """

    trees: st.SearchStrategy[Tree]
    read: Callable[[Path, Path], Any]
    wrong: Callable[[Tree, Any], str | None] = lambda tree, content: None


# Sets up a reader in a scratch folder and takes its patches back afterwards.
Opened = Callable[[Path], AbstractContextManager[Reader]]


def fingerprint(content: Any) -> str:
    """A hash of nested dicts, sequences, arrays and plain values."""
    digest = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, Mapping):
            add([(str(key), value[key]) for key in sorted(value, key=str)])
        elif isinstance(value, np.ndarray):
            digest.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
        elif isinstance(value, Iterable) and not isinstance(value, str | bytes):
            digest.update(b"[")
            for item in value:
                add(item)
            digest.update(b"]")
        else:
            digest.update(repr(value).encode())

    add(content)
    return digest.hexdigest()


def unless_same(*valid: Any) -> Callable[[Tree, Any], str | None]:
    """For formats with checksums: accepted content is that of a valid file, or it is wrong."""
    known = {fingerprint(content) for content in valid}

    def wrong(tree: Tree, content: Any) -> str | None:
        return None if fingerprint(content) in known else "the content changed unnoticed"

    return wrong
