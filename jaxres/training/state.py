"""The network and the training state: plain dicts of arrays, the same on every device."""

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxres.training.transfer import split

PyTree = Any
State = dict[str, Any]


def new_state(
    params: PyTree,
    stats: PyTree,
    optimizer: optax.GradientTransformation,
    *,
    ema: bool,
    trained: Collection[str] | None = None,
) -> State:
    """The state before the first step.

    Keys: `step` (int32, for schedules and random bits), `params`, `stats`, `opt_state` (of the
    parameters that are `trained`, None for all) and, with `ema`, the averaged `params` and `stats`.
    """
    state = {
        "step": jnp.zeros((), jnp.int32),
        "params": params,
        "stats": stats,
        "opt_state": optimizer.init(split(params, trained)[0]),
    }
    if ema:
        # Copies: the step donates its state, and a buffer can be given away only once.
        state["ema"] = jax.tree.map(jnp.copy, {"params": params, "stats": stats})
    return state


def variables(state: State) -> dict[str, PyTree]:
    """The `params` and `stats` to evaluate: the moving average where there is one."""
    return state.get("ema") or {"params": state["params"], "stats": state["stats"]}
