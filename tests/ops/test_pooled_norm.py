"""Batch norm, ReLU and max pooling as one operation, against the three."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxres.ops import pool
from jaxres.ops.norm import batch_norm
from jaxres.ops.pooled_norm import batch_norm_max_pool
from jaxres.ops.target import target_backend
from tests.marked import slow

WINDOW: Any = {"window": 3, "stride": 2, "padding": 1}


def inputs(dtype="float32"):
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.standard_normal((3, 11, 10, 6)) + 0.5, dtype)
    # Also scales below zero, of which the smallest value of a window wins.
    scale = jnp.asarray([1.0, -1.5, 0.3, -0.2, 2.0, 1.0], jnp.float32)
    bias = jnp.asarray(rng.standard_normal(6), jnp.float32)
    return images, scale, bias


def apart(images, scale, bias):
    outputs, *moments = batch_norm(images, scale, bias, epsilon=1e-5, relu=True)
    return pool.max_pool(outputs, **WINDOW), *moments


def as_one(images, scale, bias):
    return batch_norm_max_pool(images, scale, bias, epsilon=1e-5, **WINDOW)


@pytest.mark.parametrize(
    ("backend", "dtype"),
    [
        ("gpu", "float32"),
        ("gpu", "bfloat16"),
        *(slow(backend, dtype) for backend in ("cpu", "tpu") for dtype in ("float32", "bfloat16")),
    ],
)
def test_outputs_moments_and_gradients(backend, dtype):
    weights = jnp.asarray(np.random.default_rng(1).standard_normal((3, 6, 5, 6)), dtype)

    def found(function, *arrays):
        outputs, pull, moments = jax.vjp(
            lambda *a: (lambda all_: (all_[0], all_[1:]))(function(*a)), *arrays, has_aux=True
        )
        return outputs, *moments, *pull(weights.astype(outputs.dtype))

    with target_backend(backend):
        ours = found(as_one, *inputs(dtype))
    # In float32: values of bfloat16 that rounding makes tie choose another pixel.
    theirs = found(apart, *(each.astype(jnp.float32) for each in inputs(dtype)))
    tolerance = 2e-5 if dtype == "float32" else 2e-2
    for one, other in zip(ours, theirs, strict=True):
        scale = max(float(jnp.abs(other).max()), 1.0)
        np.testing.assert_allclose(
            np.asarray(one, np.float32) / scale, np.asarray(other) / scale, atol=tolerance
        )
    assert ours[0].dtype == ours[3].dtype == jnp.dtype(dtype)


@pytest.mark.parametrize("backend", [slow("cpu"), "gpu", slow("tpu")])
def test_second_order(backend):
    weights = jnp.asarray(np.random.default_rng(1).standard_normal((3, 6, 5, 6)), jnp.float32)

    def penalty(function):
        def loss(*arrays):
            return (weights * jnp.square(function(*arrays)[0])).sum()

        def length(*arrays):
            gradients = jax.grad(loss, argnums=(0, 1, 2))(*arrays)
            return sum(jnp.square(gradient).sum() for gradient in gradients)

        return jax.jit(jax.grad(length, argnums=(0, 1, 2)))(*inputs())

    with target_backend(backend):
        ours = penalty(as_one)
    for one, other in zip(ours, penalty(apart), strict=True):
        scale = float(jnp.abs(other).max())
        np.testing.assert_allclose(one / scale, other / scale, atol=1e-4)


@pytest.mark.parametrize(("window", "stride", "padding"), [slow(2, 2, 0), (3, 2, 1), slow(3, 1, 1)])
@pytest.mark.parametrize("backend", ["gpu", "tpu"])
def test_max_pooling_is_that_of_the_cpu_ties_and_all(backend, window, stride, padding):
    images = jnp.asarray(np.random.default_rng(0).integers(0, 4, (2, 9, 8, 3)), jnp.float32)

    def found(name):
        def pooled(images):
            return pool.max_pool(images, window=window, stride=stride, padding=padding)

        with target_backend(name):
            outputs, pull = jax.vjp(pooled, images)
            return outputs, pull(jnp.arange(outputs.size, dtype=jnp.float32).reshape(outputs.shape))

    ours, theirs = (jax.tree.leaves(found(name)) for name in (backend, "cpu"))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)
