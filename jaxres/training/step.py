"""The training and evaluation steps: pure functions of one device's part of a batch."""

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int32, UInt8

from jaxres.config import Config
from jaxres.data import plan, render_device
from jaxres.data.pictures import Batch
from jaxres.models.pure import Net
from jaxres.ops import target
from jaxres.ops.target import materialise
from jaxres.training import optim, transfer
from jaxres.training.averages import global_norm, mean, ordered_mean
from jaxres.training.optim import Schedule
from jaxres.training.state import State

AXIS = "data"  # the name of the devices' axis in every step
Resident = plan.Resident | None
Step = Callable[[State, Resident, Batch], tuple[State, dict[str, Array]]]


def images_of(config: Config, resident: Resident, batch: Batch) -> UInt8[Array, "n side side 3"]:
    """The pictures of a batch: as the host rendered them, or rendered here from the plan."""
    if resident is None:
        return batch["image"]
    return render_device.render(
        batch["plan"], batch.get("augmentation"), resident, data=config.data
    )


def normalisation(config: Config) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """What `normalise` depends on: data.divisor, and the mean and deviation by channel.

    A mean or standard deviation that the settings leave open is 0 or 1.
    """
    data = config.data
    return data.divisor, data.mean or (0.0, 0.0, 0.0), data.std or (1.0, 1.0, 1.0)


def normalise(config: Config, images: UInt8[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """(pixels / divisor - mean) / deviation in the model's dtype, as `normalisation` has them.

    Rendered once for all readers.
    """
    divisor, *moments = normalisation(config)
    mean, std = (jnp.array(each) for each in moments)
    values = images.astype(jnp.float32) * (1 / (divisor * std)) - mean / std
    return materialise(values.astype(config.model.dtype))


def cross_entropy(
    logits: Float[Array, "n classes"], labels: Int32[Array, " n"], *, smoothing: float = 0.0
) -> Float[Array, " n"]:
    """Per-example cross-entropy against labels smoothed as by Szegedy et al. 2016, section 7.

    On a GPU never by index, whose gradient is a scatter: additions in no fixed order.
    """
    if smoothing == 0.0 and target.backend() != "gpu":
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = jax.nn.one_hot(labels, logits.shape[-1])
    return optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, smoothing))


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
