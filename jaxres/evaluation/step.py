"""Evaluation steps: each a pure function of one device's part of a batch."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, UInt8

from jaxres.config import Config
from jaxres.data.inputs import normalise
from jaxres.models.pure import Net
from jaxres.ops.losses import evaluation_loss, is_multi_label

Labels = Int32[Array, " n"] | UInt8[Array, "n classes"]
FEW_CLASSES = 20  # of which nobody asks for the five likeliest
EvalStep = Callable[[dict[str, Any], UInt8[Array, "n side side 3"], Labels], dict[str, Array]]


def predicted_by(logits: Float[Array, "n classes"], labels: Labels) -> Labels:
    """The class of the highest logit or, where labels are so, 0 or 1 for each class."""
    if is_multi_label(labels):
        return (logits > 0).astype(jnp.uint8)
    return logits.argmax(-1).astype(jnp.int32)


def make_eval_step(net: Net, config: Config) -> EvalStep:
    """A step from one device's part of a batch to per-example `loss` and `predicted` class.

    `loss` is the plain cross-entropy, without label smoothing. Of multi-label data it is that of
    sigmoids, and there are the `logits` (float32, n classes) too. Of more than 20 classes,
    `in_top5` says whether fewer than five are likelier than the label.
    """
    outputs = make_outputs_step(net, config)

    def step(variables: dict[str, Any], images: Array, labels: Array) -> dict[str, Array]:
        results = outputs(variables, images, labels)
        if is_multi_label(labels):
            return results
        return {key: value for key, value in results.items() if key != "logits"}

    return step


def make_outputs_step(net: Net, config: Config) -> EvalStep:
    """A step that gives the `logits` (float32, n classes) as well."""

    def step(variables: dict[str, Any], images: Array, labels: Array) -> dict[str, Array]:
        params, stats = variables["params"], variables["stats"]
        logits, _ = net.apply(params, stats, normalise(config, images), train=False)
        results = {
            "logits": logits,
            "loss": evaluation_loss(logits, labels),
            "predicted": predicted_by(logits, labels),
        }
        if logits.shape[-1] > FEW_CLASSES and not is_multi_label(labels):
            own = jnp.take_along_axis(logits, labels[:, None], -1)
            results["in_top5"] = (logits > own).sum(-1) < 5
        return results

    return step


def make_features_step(net: Net, config: Config) -> EvalStep:
    """A step that gives the `features`: the maps that the head reads (float32, n h w channels)."""

    def step(variables: dict[str, Any], images: Array, labels: Array) -> dict[str, Array]:
        del labels
        maps: dict[str, Array] = {}

        def tap(name: str, seen: Array) -> Array:
            maps[name] = seen
            return seen

        params, stats = variables["params"], variables["stats"]
        net.apply(params, stats, normalise(config, images), train=False, tap=tap)
        return {"features": maps["features"].astype(jnp.float32)}

    return step
