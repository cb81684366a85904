"""The training and evaluation steps: pure functions of one device's part of a batch."""

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from jaxres.config import Config
from jaxres.data.inputs import Resident, images_of, normalise
from jaxres.data.pictures import Batch
from jaxres.distributed.mesh import AXIS
from jaxres.models.pure import Net
from jaxres.ops.losses import cross_entropy
from jaxres.training import optim, transfer
from jaxres.training.averages import global_norm, mean, ordered_mean
from jaxres.training.optim import Schedule
from jaxres.training.state import State

Step = Callable[[State, Resident, Batch], tuple[State, dict[str, Array]]]


def make_train_step(
    net: Net,
    optimizer: optax.GradientTransformation,
    learning_rate: Schedule,
    config: Config,
    *,
    trained: Collection[str] | None = None,
) -> Step:
    """A step that trains on one device's part of a batch and averages over the axis `data`.

    Gradients, running statistics and metrics are averaged together. The running statistics are
    linear in each batch's, so averaging them at every step gives what averaging them at the end
    would, and the whole state stays the same on every device.

    With `trained` only the parameters of these names are differentiated and updated, and a batch
    norm whose scale is not among them normalises by its running statistics.
    """
    parts = config.optim.accumulate_steps
    decay = config.optim.ema_decay
    frozen_norms = transfer.frozen_norms(net.stats, trained)

    def loss_of(
        params: Any, frozen: Any, stats: Any, images: Array, labels: Array, key: Array
    ) -> tuple[Array, tuple[Any, Array]]:
        logits, stats = net.apply(
            transfer.join(params, frozen),
            stats,
            normalise(config, images),
            train=True,
            key=key,
            frozen_norms=frozen_norms,
        )
        smoothing = config.optim.label_smoothing
        loss = cross_entropy(logits, labels, smoothing=smoothing).mean()
        accuracy = jnp.mean(logits.argmax(-1) == labels, dtype=jnp.float32)
        return loss, (stats, accuracy)

    gradient = jax.value_and_grad(loss_of, has_aux=True)

    def part_by_part(
        params: Any, frozen: Any, stats: Any, images: Array, labels: Array, key: Array
    ) -> tuple[Any, Any, Array, Array]:
        """Gradients, statistics, loss and accuracy of the batch taken in `parts` parts.

        The statistics move once, by the mean of how far each part would move them.
        """

        def one(part: tuple[Array, Array, Array]) -> tuple[Any, Any, Array, Array]:
            (loss, (new, accuracy)), grads = gradient(params, frozen, stats, *part)
            return grads, new, loss, accuracy

        if parts == 1:
            return one((images, labels, key))
        cut = (
            images.reshape(parts, -1, *images.shape[1:]),
            labels.reshape(parts, -1),
            jax.random.split(key, parts),
        )

        def add(sums: Any, part: Any) -> tuple[Any, None]:
            grads, new, *numbers = one(part)
            moves = jax.tree.map(jnp.subtract, new, stats)
            return jax.tree.map(jnp.add, sums, (grads, moves, *numbers)), None

        zeros = jax.tree.map(jnp.zeros_like, (params, stats))
        sums, _ = jax.lax.scan(add, (*zeros, jnp.zeros(()), jnp.zeros(())), cut)
        grads, moves, loss, accuracy = jax.tree.map(lambda total: total / parts, sums)
        return grads, jax.tree.map(jnp.add, stats, moves), loss, accuracy

    def step(state: State, resident: Resident, batch: Batch) -> tuple[State, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.key(config.train.seed), state["step"])
        key = jax.random.fold_in(key, jax.lax.axis_index(AXIS))
        images = images_of(config, resident, batch)
        params, frozen = transfer.split(state["params"], trained)
        grads, stats, loss, accuracy = part_by_part(
            params, frozen, state["stats"], images, batch["label"], key
        )
        average = mean if config.train.reduction == "all_reduce" else ordered_mean
        grads, stats, loss, accuracy = average((grads, stats, loss, accuracy), AXIS)
        opt_state = optim.at_step(state["opt_state"], state["step"])
        updates, opt_state = optimizer.update(grads, opt_state, params)
        new = {
            "step": state["step"] + 1,
            "params": transfer.join(optax.apply_updates(params, updates), frozen),
            "stats": stats,
            "opt_state": opt_state,
        }
        if decay:
            # A young average follows faster, or it would remember the random start for long.
            warm = jnp.minimum(decay, (1 + state["step"]) / (10 + state["step"]))
            new["ema"] = jax.tree.map(
                lambda old, now: warm * old + (1 - warm) * now,
                state["ema"],
                {"params": new["params"], "stats": new["stats"]},
            )
        metrics = {
            "loss": loss,
            "accuracy": accuracy,
            "learning_rate": jnp.asarray(learning_rate(state["step"]), jnp.float32),
            "grad_norm": global_norm(grads),
            "update_norm": global_norm(updates),
        }
        if config.train.on_nan == "skip":
            finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["update_norm"])
            kept = {**state, "step": new["step"]}
            new = jax.tree.map(lambda now, before: jnp.where(finite, now, before), new, kept)
            metrics["skipped"] = ~finite
        return new, metrics

    return step
