"""The training state: a pytree of arrays, the same on every device."""

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from jaxres.training.transfer import split

PyTree = Any


class TrainState(struct.PyTreeNode):
    """What a training step takes and gives.

    `step` counts the steps so far, for schedules and random bits. `opt_state` is the optimiser's,
    of the parameters that train. `ema` holds the moving averages of `params` and `stats`, or is
    None.
    """

    step: Any  # int32 scalar; unchecked, for tree functions put anything in the place of arrays
    params: PyTree
    stats: PyTree
    opt_state: PyTree
    ema: PyTree = None

    @property
    def variables(self) -> dict[str, PyTree]:
        """The `params` and `stats` to evaluate: the moving averages if there are any."""
        return self.ema or {"params": self.params, "stats": self.stats}

    def to_dict(self) -> dict[str, PyTree]:
        """The items of a checkpoint; `TrainState(**items)` is the state again."""
        items = {
            "step": self.step,
            "params": self.params,
            "stats": self.stats,
            "opt_state": self.opt_state,
        }
        return items if self.ema is None else {**items, "ema": self.ema}


def new_state(
    params: PyTree,
    stats: PyTree,
    optimizer: optax.GradientTransformation,
    *,
    ema: bool,
    trained: Collection[str] | None = None,
) -> TrainState:
    """The state before the first step; `trained` names the parameters that train, None all."""
    # Copies: the step donates its state, and a buffer can be donated only once.
    averages = jax.tree.map(jnp.copy, {"params": params, "stats": stats}) if ema else None
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        stats=stats,
        opt_state=optimizer.init(split(params, trained)[0]),
        ema=averages,
    )
