"""The network that the settings of a run ask for."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxres.config import Config
from jaxres.models import registry
from jaxres.models.pure import Net, abstract_net, create_net
from jaxres.runtime.own_code import own_code


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
    """The network of a run with shapes in place of weights.

    Raises:
        InputError: no model has this name, it does not take an option's value, or it was registered
            by a user and fails.
    """
    net = abstract_net(config.model.name, **_network_options(config, classes))
    if registry.is_own(config.model.name):
        _try_out(config, net)
    return net


def _try_out(config: Config, net: Net) -> None:
    """Run a network on shapes, in training too where that needs no other devices."""
    side = config.data.image_size
    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    for train in (False,) if config.model.sync_batch_norm else (False, True):

        def logits(params: Any, stats: Any, images: Any, train: bool = train) -> Any:
            return net.apply(params, stats, images, train=train, key=jax.random.key(0))

        with own_code(f"the model '{config.model.name}'"):
            jax.eval_shape(logits, net.params, net.stats, images)
