"""The training step: a pure function of one device's part of a batch."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from jaxres.config import Config
from jaxres.data.composed import Batch
from jaxres.data.inputs import Resident, images_of, normalise
from jaxres.distributed.mesh import AXIS
from jaxres.models.pure import Net
from jaxres.ops.losses import correct
from jaxres.training import optim, transfer
from jaxres.training.averages import global_norm, mean, ordered_mean
from jaxres.training.losses import find_loss
from jaxres.training.mixing import mixed
from jaxres.training.optim import Schedule
from jaxres.training.state import TrainState

PyTree = Any
Metrics = dict[str, Array]
MIXING = 2  # of the keys of a step; the network folds in 0 and 1
Step = Callable[[TrainState, Resident, Batch], tuple[TrainState, Metrics]]


class Gradients(NamedTuple):
    """What a batch gives: gradients, running statistics moved by it, mean loss and accuracy."""

    params: PyTree
    stats: PyTree
    loss: Array
    accuracy: Array


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

    Raises:
        InputError: no loss has the name `train.loss`.
    """
    frozen_norms = transfer.frozen_norms(net.stats, trained)
    loss = partial(batch_loss, net, config, find_loss(config.train.loss), frozen_norms)
    microbatches = config.optim.accumulate_steps
    average = mean if config.train.reduction == "all_reduce" else ordered_mean

    def step(state: TrainState, resident: Resident, batch: Batch) -> tuple[TrainState, Metrics]:
        chex.assert_rank(state.step, 0)
        images = images_of(config, resident, batch)
        chex.assert_rank(images, 4)
        chex.assert_equal_shape_prefix([images, batch["label"]], 1)
        params, frozen = transfer.split(state.params, trained)
        key = device_key(config.train.seed, state.step)
        local = accumulate_gradients(
            partial(loss, frozen), params, state.stats, images, batch["label"], key, microbatches
        )
        grads, stats, loss_value, accuracy = average(local, AXIS)
        opt_state = optim.at_step(state.opt_state, state.step)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = transfer.join(optax.apply_updates(params, updates), frozen)
        ema = moving_average(state, {"params": params, "stats": stats}, config.optim.ema_decay)
        new = TrainState(
            step=state.step + 1, params=params, stats=stats, opt_state=opt_state, ema=ema
        )
        metrics = {
            "loss": loss_value,
            "accuracy": accuracy,
            "learning_rate": jnp.asarray(learning_rate(state.step), jnp.float32),
            "grad_norm": global_norm(grads),
            "update_norm": global_norm(updates),
        }
        if config.train.on_nan == "skip":
            new, metrics = skip_not_finite(state, new, metrics)
        return new, metrics

    return step


def device_key(seed: int, step: Array) -> Array:
    """The random key of this device in this step."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.random.fold_in(key, jax.lax.axis_index(AXIS))


def batch_loss(
    net: Net,
    config: Config,
    loss: Callable[..., Array],
    frozen_norms: frozenset[str],
    frozen: PyTree,
    params: PyTree,
    stats: PyTree,
    images: Array,
    labels: Array,
    key: Array,
) -> tuple[Array, tuple[PyTree, Array]]:
    """Mean loss of a batch, and its running statistics and accuracy."""
    pixels, share = normalise(config, images), None
    augment = config.augment.resolved()
    if augment.mixup or augment.cutmix:
        pixels, share = mixed(pixels, jax.random.fold_in(key, MIXING), augment)
    logits, stats = net.apply(
        transfer.join(params, frozen),
        stats,
        pixels,
        train=True,
        key=key,
        frozen_norms=frozen_norms,
    )
    losses = loss(logits, labels, smoothing=config.optim.label_smoothing)
    chex.assert_shape(losses, labels.shape[:1])
    if share is not None:
        others = loss(logits, labels[::-1], smoothing=config.optim.label_smoothing)
        losses = share * losses + (1 - share) * others
    accuracy = jnp.mean(correct(logits, labels), dtype=jnp.float32)
    return losses.mean(), (stats, accuracy)


def accumulate_gradients(
    loss: Callable[..., Any],
    params: PyTree,
    stats: PyTree,
    images: Array,
    labels: Array,
    key: Array,
    microbatches: int,
) -> Gradients:
    """Gradients of a batch, computed in one piece or as the mean over microbatches.

    The running statistics move once, by the mean of how far each microbatch would move them.
    """
    gradient = jax.value_and_grad(loss, has_aux=True)

    def gradients_of(images: Array, labels: Array, key: Array) -> Gradients:
        (value, (new, accuracy)), grads = gradient(params, stats, images, labels, key)
        return Gradients(grads, new, value, accuracy)

    if microbatches == 1:
        return gradients_of(images, labels, key)

    def add(sums: Gradients, microbatch: tuple[Array, Array, Array]) -> tuple[Gradients, None]:
        found = gradients_of(*microbatch)
        moves = jax.tree.map(jnp.subtract, found.stats, stats)
        return jax.tree.map(jnp.add, sums, found._replace(stats=moves)), None

    zeros = jax.tree.map(jnp.zeros_like, Gradients(params, stats, jnp.zeros(()), jnp.zeros(())))
    cut = (
        images.reshape(microbatches, -1, *images.shape[1:]),
        labels.reshape(microbatches, -1, *labels.shape[1:]),
        jax.random.split(key, microbatches),
    )
    sums, _ = jax.lax.scan(add, zeros, cut)
    means: Gradients = jax.tree.map(lambda total: total / microbatches, sums)
    return means._replace(stats=jax.tree.map(jnp.add, stats, means.stats))


def moving_average(state: TrainState, now: PyTree, decay: float) -> PyTree:
    """The averages of `state` moved towards `now`; None without a decay."""
    if not decay:
        return None
    # A young average follows faster, or it would remember the random start for long.
    warm = jnp.minimum(decay, (1 + state.step) / (10 + state.step))
    return jax.tree.map(lambda old, new: warm * old + (1 - warm) * new, state.ema, now)


def skip_not_finite(
    before: TrainState, after: TrainState, metrics: Metrics
) -> tuple[TrainState, Metrics]:
    """The state before, but for its step, where loss or update is not finite: `skipped` tells."""
    finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["update_norm"])
    kept = before.replace(step=after.step)
    state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, kept)
    return state, {**metrics, "skipped": ~finite}
