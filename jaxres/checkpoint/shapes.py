"""The shapes of a checkpoint's weights, compared with those of a network."""

from pathlib import Path
from typing import Any

import jax

from jaxres.runtime.errors import InputError

PyTree = Any


def require_shapes(checkpoint: Path, saved: PyTree, asked: PyTree) -> None:
    """Refuse the weights of a checkpoint that are of another network than is asked for.

    Raises:
        InputError: naming the first that differs.
    """
    ours, theirs = _shapes(asked), _shapes(saved)
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            raise InputError(
                f"checkpoint '{checkpoint}' belongs to another network: {key} has "
                f"shape {theirs.get(key)}, but the settings ask for {ours.get(key)}"
            )


def abstract_like(tree: PyTree, sharding: jax.sharding.Sharding) -> PyTree:
    """Shapes and types of a tree, to be restored with one sharding."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    """Shape by path, as `params.head.linear.bias`."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape)
        for path, leaf in jax.tree.leaves_with_path(tree)
    }
