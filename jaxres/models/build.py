"""The network that the settings of a run ask for."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxres.config import Config
from jaxres.models.pure import Net, abstract_net, create_net


def _network_options(config: Config, classes: int) -> dict[str, Any]:
    model = config.model
    return {
        "classes": classes,
        "image_size": config.data.image_size,
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
