import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxres.config import OptimConfig
from jaxres.runtime.errors import InputError
from jaxres.training import optim


def run(config: OptimConfig, gradients: np.ndarray, start: np.ndarray) -> np.ndarray:
    optimizer = optim.create(config, len(gradients))
    params = {"kernel": jnp.asarray(start)}
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update({"kernel": jnp.asarray(gradient)}, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return np.asarray(params["kernel"])


GRADIENTS = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)
START = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)


def test_adadelta_is_zeilers() -> None:
    config = OptimConfig(name="adadelta", learning_rate=1.0, rho=0.95, epsilon=1e-7)
    x = START.astype(np.float64)
    squares, deltas = np.zeros_like(x), np.zeros_like(x)
    for g in GRADIENTS.astype(np.float64):
        squares = 0.95 * squares + 0.05 * g**2
        delta = -np.sqrt(deltas + 1e-7) / np.sqrt(squares + 1e-7) * g
        deltas = 0.95 * deltas + 0.05 * delta**2
        x = x + delta
    np.testing.assert_allclose(run(config, GRADIENTS, START), x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_couples_weight_decay_and_adamw_does_not(name: str) -> None:
    config = OptimConfig(name=name, learning_rate=0.1, weight_decay=0.01, epsilon=1e-8)
    x = START.astype(np.float64)
    first, second = np.zeros_like(x), np.zeros_like(x)
    for t, g in enumerate(GRADIENTS.astype(np.float64), 1):
        g = g + 0.01 * x if name == "adam" else g
        first = 0.9 * first + 0.1 * g
        second = 0.999 * second + 0.001 * g**2
        update = first / (1 - 0.9**t) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
        x = x - 0.1 * (update + (0.01 * x if name == "adamw" else 0))
    np.testing.assert_allclose(run(config, GRADIENTS, START), x, rtol=1e-4)


@pytest.mark.parametrize("name", ["sgd", "nesterov"])
def test_momentum_as_torch_has_it(name: str) -> None:
    config = OptimConfig(name=name, learning_rate=0.1, momentum=0.9, weight_decay=0.01)
    x, velocity = START.astype(np.float64), np.zeros((3, 4))
    for g in GRADIENTS.astype(np.float64):
        g = g + 0.01 * x
        velocity = 0.9 * velocity + g
        x = x - 0.1 * (g + 0.9 * velocity if name == "nesterov" else velocity)
    np.testing.assert_allclose(run(config, GRADIENTS, START), x, rtol=1e-5, atol=1e-6)


def test_lars_scales_each_kernels_step_to_its_norm() -> None:
    config = OptimConfig(name="lars", learning_rate=0.1, momentum=0.9, weight_decay=0.01)
    x, velocity = START.astype(np.float64), np.zeros((3, 4))
    for g in GRADIENTS.astype(np.float64):
        g = g + 0.01 * x
        velocity = 0.9 * velocity + 0.1 * 0.001 * np.linalg.norm(x) / np.linalg.norm(g) * g
        x = x - velocity
    np.testing.assert_allclose(run(config, GRADIENTS, START), x, rtol=1e-5, atol=1e-6)


def test_lamb_scales_adams_step_to_the_kernels_norm() -> None:
    config = OptimConfig(name="lamb", learning_rate=0.1, weight_decay=0.01, epsilon=1e-6)
    x = START.astype(np.float64)
    first, second = np.zeros_like(x), np.zeros_like(x)
    for t, g in enumerate(GRADIENTS.astype(np.float64), 1):
        first = 0.9 * first + 0.1 * g
        second = 0.999 * second + 0.001 * g**2
        update = first / (1 - 0.9**t) / (np.sqrt(second / (1 - 0.999**t)) + 1e-6) + 0.01 * x
        x = x - 0.1 * np.linalg.norm(x) / np.linalg.norm(update) * update
    np.testing.assert_allclose(run(config, GRADIENTS, START), x, rtol=1e-4)


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb"])
def test_weight_decay_is_for_all_if_asked(name: str) -> None:
    config = OptimConfig(name=name, weight_decay=0.5, decayed="all")
    optimizer = optim.create(config, 1)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates: Any = optimizer.update(zeros, optimizer.init(params), params)[0]
    assert (updates["bias"] != 0).all()


@pytest.mark.parametrize("name", ["sgd", "lars", "lamb"])
def test_weight_decay_leaves_biases_and_scales_alone(name: str) -> None:
    optimizer = optim.create(OptimConfig(name=name, weight_decay=0.5), 1)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates: Any = optimizer.update(zeros, optimizer.init(params), params)[0]
    assert (updates["kernel"] != 0).all()
    assert (updates["bias"] == 0).all()


def test_clipping_bounds_the_global_norm() -> None:
    config = OptimConfig(name="sgd", learning_rate=1.0, momentum=0.0, clip_norm=0.5)
    moved = run(config, GRADIENTS[:1] * 100, START) - START
    assert np.linalg.norm(moved) == pytest.approx(0.5, rel=1e-5)


def test_schedules_start_peak_and_end_where_they_say() -> None:
    def rates(**changed) -> np.ndarray:
        config = dataclasses.replace(OptimConfig(learning_rate=2.0), **changed)
        schedule = optim.learning_rate(config, 100)
        return np.array([float(schedule(step)) for step in range(101)])

    assert (rates() == 2.0).all()
    warm = rates(warmup_fraction=0.1)
    np.testing.assert_allclose(warm[:11], 2.0 * np.arange(1, 12) / 11, rtol=1e-6)
    assert (warm[10:] == 2.0).all()
    cosine = rates(schedule="cosine", warmup_fraction=0.2)
    assert cosine.argmax() == 20
    assert cosine[60] == pytest.approx(1.0)
    assert cosine[100] == pytest.approx(0.0, abs=1e-6)
    cycle = rates(schedule="one_cycle", warmup_fraction=0.3)
    assert cycle[0] == pytest.approx(2.0 / 25)
    assert cycle.argmax() == 30
    assert cycle[100] == pytest.approx(2.0 / 25e4, rel=1e-2)


def test_an_unknown_optimiser_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'adadelta'"):
        optim.create(OptimConfig(name="adadleta"), 10)
