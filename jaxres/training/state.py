"""The network and the training state: plain dicts of arrays, the same on every device."""

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxres.config import Config
from jaxres.models.pure import Net, abstract_net, create_net
from jaxres.training.transfer import split

PyTree = Any
State = dict[str, Any]


def _network_options(config: Config, classes: int) -> dict[str, Any]:
    model = config.model
    return {
        "classes": classes,
        "image_size": config.data.picture_side,
        "stem": model.stem,
        "head": model.head,
        "dense": model.dense,
        "dense_norm": model.dense_norm,
        "dropout": model.dropout,
        "spatial_dropout": model.spatial_dropout,
        "dtype": jnp.dtype(model.dtype),
        "sync_batch_norm": model.sync_batch_norm,
        "fold_norm": model.fold_norm,
    }


def network(config: Config, *, classes: int) -> Net:
    """The network of a run with initial weights drawn from `train.seed`."""
    key = jax.random.key(config.train.seed)
    return create_net(config.model.name, key=key, **_network_options(config, classes))


def abstract_network(config: Config, *, classes: int) -> Net:
    """The network of a run with shapes in place of weights."""
    return abstract_net(config.model.name, **_network_options(config, classes))


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
