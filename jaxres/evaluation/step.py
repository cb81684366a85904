"""The evaluation step: a pure function of one device's part of a batch."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Int32, UInt8

from jaxres.config import Config
from jaxres.data.inputs import normalise
from jaxres.models.pure import Net
from jaxres.ops.losses import cross_entropy


def make_eval_step(
    net: Net, config: Config
) -> Callable[
    [dict[str, Any], UInt8[Array, "n side side 3"], Int32[Array, " n"]], dict[str, Array]
]:
    """A step from one device's part of a batch to per-example `loss` and `predicted` class.

    `loss` is the plain cross-entropy, without label smoothing.
    """

    def step(variables: dict[str, Any], images: Array, labels: Array) -> dict[str, Array]:
        params, stats = variables["params"], variables["stats"]
        logits, _ = net.apply(params, stats, normalise(config, images), train=False)
        return {
            "loss": cross_entropy(logits, labels),
            "predicted": logits.argmax(-1).astype(jnp.int32),
        }

    return step
