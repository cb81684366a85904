"""Initial weights of a run that does not start from random ones: `model.init_from`."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxres.checkpoint.loading import read_run
from jaxres.config import Config
from jaxres.models.pure import flatten, unflatten
from jaxres.runtime.errors import InputError

PyTree = Any
HEAD = "head."


class Initial(NamedTuple):
    """Weights to start from, and what came with them."""

    params: PyTree
    stats: PyTree
    normalisation: dict[str, Any]  # `mean` and `std` of the inputs they were trained on
    new_head: bool  # whether the head is the fresh one


def load(config: Config, params: PyTree, stats: PyTree, sharding: jax.sharding.Sharding) -> Initial:
    """The weights of `model.init_from` in the place of fresh ones.

    They are those that evaluating that run's best checkpoint takes. Its head is taken where it fits
    whole; the fresh one stays where the number of classes or the dense layers are others, and where
    `model.new_head` asks for it.

    Raises:
        InputError: there is no such checkpoint, it is damaged, or its body is another network's.
    """
    folder = config.model.init_from
    saved = read_run(Path(folder), "best", sharding, key="model.init_from")
    given = flatten(saved.weights)
    fresh = flatten({"params": params, "stats": stats})
    differing = _differing(given, fresh)
    heads = {name for name in differing if _in_head(name)}
    if bodies := sorted(differing - heads):
        raise InputError(
            f"model.init_from '{folder}' holds weights of a network other than "
            f"{config.model.name}: {len(bodies)} weights differ, such as {bodies[0]}, which "
            f"has shape {_shape(given, bodies[0])} there and {_shape(fresh, bodies[0])} here"
        )
    new_head = bool(heads) or config.model.new_head
    source = {name: leaf for name, leaf in given.items() if not (new_head and _in_head(name))}
    taken = unflatten({**fresh, **source})
    return Initial(
        taken["params"],
        taken.get("stats", {}),
        {key: saved.config["data"][key] for key in ("mean", "std")},
        new_head,
    )


def _in_head(name: str) -> bool:
    return name.partition(".")[2].startswith(HEAD)


def _shape(weights: dict[str, Any], name: str) -> tuple[int, ...] | None:
    return np.shape(weights[name]) if name in weights else None


def _differing(ours: dict[str, Any], theirs: dict[str, Any]) -> set[str]:
    return {
        name for name in ours.keys() | theirs.keys() if _shape(ours, name) != _shape(theirs, name)
    }
