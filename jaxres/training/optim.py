"""Optimisers and learning-rate schedules by name."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int32

from jaxres.config import OptimConfig
from jaxres.runtime.errors import InputError, find
from jaxres.runtime.own_code import calling, registering

Schedule = Callable[[Any], Any]
Optimizer = Callable[[OptimConfig, Schedule], optax.GradientTransformation]


TRUST = 0.001  # LARS's coefficient, as in You et al. 2017


def _kernels(params: Any) -> Any:
    """Weight decay is for kernels: biases and batch norm's scales have one dimension."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _all(params: Any) -> Any:
    return jax.tree.map(lambda leaf: True, params)


def _decayed(config: OptimConfig) -> Callable[[Any], Any]:
    return _all if config.decayed == "all" else _kernels


def _l2(config: OptimConfig) -> optax.GradientTransformation:
    return optax.add_decayed_weights(config.weight_decay, mask=_decayed(config))


def _l1(config: OptimConfig) -> optax.GradientTransformation:
    def add(updates: Any, params: Any) -> Any:
        def penalised(update: jax.Array, param: jax.Array, kernel: bool) -> jax.Array:
            return update + config.l1 * jnp.sign(param) if kernel else update

        return jax.tree.map(penalised, updates, params, _kernels(params))

    return optax.stateless(add)


def _adadelta(config: OptimConfig, rate: Schedule) -> optax.GradientTransformation:
    # Zeiler 2012; with learning rate 1, rho 0.95 and epsilon 1e-7 the original Keras default.
    adadelta = optax.scale_by_adadelta(rho=config.rho, eps=config.epsilon)
    return optax.chain(_l2(config), adadelta, optax.scale_by_learning_rate(rate))


def _adam(config: OptimConfig, rate: Schedule) -> optax.GradientTransformation:
    adam = optax.scale_by_adam(config.beta1, config.beta2, config.epsilon)
    return optax.chain(_l2(config), adam, optax.scale_by_learning_rate(rate))


def _adamw(config: OptimConfig, rate: Schedule) -> optax.GradientTransformation:
    adam = optax.scale_by_adam(config.beta1, config.beta2, config.epsilon)
    return optax.chain(adam, _l2(config), optax.scale_by_learning_rate(rate))


def _sgd(config: OptimConfig, rate: Schedule) -> optax.GradientTransformation:
    return optax.chain(_l2(config), optax.sgd(rate, config.momentum))


def _nesterov(config: OptimConfig, rate: Schedule) -> optax.GradientTransformation:
    return optax.chain(_l2(config), optax.sgd(rate, config.momentum, nesterov=True))


def _lars(config: OptimConfig, rate: Schedule) -> optax.GradientTransformation:
    """You, Gitman and Ginsburg 2017: each kernel's step is in proportion to its norm."""
    return optax.lars(
        rate,
        weight_decay=config.weight_decay,
        weight_decay_mask=_decayed(config),
        trust_coefficient=TRUST,
        trust_ratio_mask=_kernels,
        momentum=config.momentum,
    )


def _lamb(config: OptimConfig, rate: Schedule) -> optax.GradientTransformation:
    """You et al. 2020, "Large batch optimization for deep learning": the same over Adam."""
    return optax.chain(
        optax.scale_by_adam(config.beta1, config.beta2, config.epsilon),
        _l2(config),
        optax.masked(optax.scale_by_trust_ratio(), _kernels),
        optax.scale_by_learning_rate(rate),
    )


OPTIMIZERS: dict[str, Optimizer] = {
    "adadelta": _adadelta,
    "adam": _adam,
    "adamw": _adamw,
    "lamb": _lamb,
    "lars": _lars,
    "nesterov": _nesterov,
    "sgd": _sgd,
}


def register_optimizer(name: str) -> Callable[[Optimizer], Optimizer]:
    """Decorator that makes an optimiser available as `optim.name: NAME`.

    It takes the section `optim` of the settings and the learning rate as a function of the step,
    and gives an Optax transformation.

    Raises:
        ValueError: the name is taken, or is empty.
    """
    what = f"the optimiser '{name}'"

    def entry(make: Optimizer) -> Optimizer:
        def made(config: OptimConfig, rate: Schedule) -> optax.GradientTransformation:
            optimizer = calling(what, make)(config, rate)
            if not isinstance(optimizer, optax.GradientTransformation):
                raise InputError(f"{what} is {optimizer!r:.80}; allowed: an Optax transformation")
            return optimizer._replace(
                init=calling(what, optimizer.init), update=calling(what, optimizer.update)
            )

        return made

    return registering("optimiser", name, OPTIMIZERS, entry)


def learning_rate(config: OptimConfig, total_steps: int) -> Schedule:
    """The learning rate as a function of the step.

    `constant` and `cosine` rise in equal steps, from above 0 to the peak, which they reach right
    after the warm-up; `cosine` then falls to 0.
    `one_cycle` is Smith and Topin's (2018) with cosine flanks: from 1/25 of the peak up over the
    warm-up, then down to 1/250,000 of it.
    """
    peak = config.learning_rate
    if config.schedule == "one_cycle":
        return optax.cosine_onecycle_schedule(total_steps, peak, config.warmup_fraction)
    warmup_steps = round(config.warmup_fraction * total_steps)
    rise = optax.linear_schedule(peak / (warmup_steps + 1), peak, warmup_steps)
    rest: Schedule = optax.constant_schedule(peak)
    if config.schedule == "cosine":
        rest = optax.cosine_decay_schedule(peak, max(1, total_steps - warmup_steps))
    return optax.join_schedules([rise, rest], [warmup_steps]) if warmup_steps else rest


def create(config: OptimConfig, total_steps: int) -> optax.GradientTransformation:
    """The optimiser of a run.

    Raises:
        InputError: the name is not registered.
    """
    optimizer = unclipped(config, total_steps)
    if config.clip_norm is None:
        return optimizer
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), optimizer)


def clip(config: OptimConfig, gradients: Any) -> Any:
    """The gradients, shortened to `clip_norm`."""
    if config.clip_norm is None:
        return gradients
    shorten = optax.clip_by_global_norm(config.clip_norm)
    return shorten.update(gradients, shorten.init(gradients))[0]


def unclipped(config: OptimConfig, total_steps: int) -> optax.GradientTransformation:
    """The optimiser without clipping.

    Raises:
        InputError: the name is not registered.
    """
    make = find("optimiser in optim.name", config.name, OPTIMIZERS)
    optimizer = make(config, learning_rate(config, total_steps))
    return optax.chain(_l1(config), optimizer) if config.l1 else optimizer


def at_step(opt_state: Any, step: Int32[Array, ""]) -> Any:
    """The state of an optimiser whose next update has the learning rate of a step of the run.

    Optax counts updates. Steps that were skipped or passed over do not count, and parameters that
    started to train later have fewer.
    """

    def is_schedule(node: Any) -> bool:
        return isinstance(node, optax.ScaleByScheduleState)

    def at(node: Any) -> Any:
        return node._replace(count=step) if is_schedule(node) else node

    return jax.tree.map(at, opt_state, is_leaf=is_schedule)
