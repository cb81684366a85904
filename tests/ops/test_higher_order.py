"""Gradients of gradients through operations whose gradient is written out.

A gradient penalty is differentiated and compared with the one that JAX derives itself. Forward
mode has no rule where a gradient is written out: JAX says so, and gives no wrong number.
The norms are in `test_norm`, `test_folded_norm` and `test_pooled_norm`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxres.ops import pool, target
from jaxres.ops.conv import LOWERINGS, conv2d, force_lowering
from jaxres.ops.target import target_backend
from tests.marked import slow

# Side of the images, kernel, input and output channels, stride, padding, groups.
SHAPES = {
    "dot": (6, 1, 4, 5, 1, 0, 1),
    "shifted": (6, 3, 4, 4, 1, 1, 4),
    "patches": (6, 3, 3, 5, 2, 1, 1),
    "parts": (12, 7, 3, 4, 2, 3, 1),
    "winograd": (6, 3, 4, 5, 1, 1, 1),
    "space_to_depth": (12, 7, 3, 4, 2, 3, 1),
    "four_channels": (12, 7, 3, 4, 2, 3, 1),
}


def random(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(sum(shape)).standard_normal(shape), jnp.float32)


def penalty_gradients(function, *arrays):
    """The gradient of the squared length of the gradient of a sum of squares."""

    def length(*arrays):
        def loss(*arrays):
            outputs = function(*arrays)
            return (random(*outputs.shape) * jnp.square(outputs)).sum()

        gradients = jax.grad(loss, argnums=range(len(arrays)))(*arrays)
        return sum(jnp.square(gradient).sum() for gradient in gradients)

    return jax.jit(jax.grad(length, argnums=range(len(arrays))))(*arrays)


def assert_alike(ours, theirs) -> None:
    for one, other in zip(ours, theirs, strict=True):
        scale = float(jnp.abs(other).max())
        np.testing.assert_allclose(one / scale, other / scale, atol=1e-4)


@pytest.mark.parametrize(
    "name",
    [slow(x) if x in ("winograd", "shifted") else x for x in sorted(LOWERINGS.keys() - {"xla"})],
)
def test_convolution(name: str) -> None:
    side, extent, channels, features, stride, padding, groups = SHAPES[name]
    images = random(4, side, side, channels)
    kernel = random(extent, extent, channels // groups, features)

    def derived(images, kernel):
        return lax.conv_general_dilated(
            images,
            kernel,
            (stride, stride),
            [(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    def ours(images, kernel):
        return conv2d(images, kernel, stride=stride, padding=padding, groups=groups)

    with force_lowering(name):
        found = penalty_gradients(ours, images, kernel)
        with pytest.raises(TypeError, match="forward-mode"):
            jax.jvp(ours, (images, kernel), (images, kernel))
    assert_alike(found, penalty_gradients(derived, images, kernel))


@pytest.mark.parametrize(
    ("window", "stride", "padding"),
    [slow(2, 2, 0), (3, 2, 1), slow(3, 1, 1)],
)
@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_max_pooling(backend: str, window: int, stride: int, padding: int) -> None:
    images = random(2, 9, 8, 3)

    def derived(images):
        edges = ((0, 0), (padding, padding), (padding, padding), (0, 0))
        padded = jnp.pad(images, edges, constant_values=-1e9)
        rows, columns = ((side - window) // stride + 1 for side in padded.shape[1:3])
        windows = [
            padded[:, stride * y : stride * y + window, stride * x : stride * x + window].max(
                (1, 2)
            )
            for y in range(rows)
            for x in range(columns)
        ]
        return jnp.stack(windows, 1).reshape(len(images), rows, columns, -1)

    def ours(images):
        return pool.max_pool(images, window=window, stride=stride, padding=padding)

    with target_backend(backend):
        found = penalty_gradients(ours, images)
        with pytest.raises(TypeError, match="forward-mode"):
            jax.jvp(ours, (images,), (images,))
    assert_alike(found, penalty_gradients(derived, images))


def test_apart() -> None:
    images = random(2, 3)
    with target_backend("gpu"):
        found = penalty_gradients(target.apart, images)
    assert_alike(found, penalty_gradients(lambda images: images, images))
