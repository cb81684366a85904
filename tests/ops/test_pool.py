"""Pooling against NumPy, with the gradient of ties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jaxres.ops import pool


def windows(size, window, stride, padding):
    """Corner pairs of the windows of a padded picture."""
    starts = [range(0, side + 2 * padding - window + 1, stride) for side in size]
    return [(y, x) for y in starts[0] for x in starts[1]], (len(starts[0]), len(starts[1]))


def reference_max_pool(images, cotangent, window, stride, padding):
    """Maximum of each window and the gradient to its first maximum, by loops."""
    pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = np.pad(images, pads, constant_values=-np.inf)
    corners, (height, width) = windows(images.shape[1:3], window, stride, padding)
    outputs = np.zeros((len(images), height, width, images.shape[3]))
    to_padded = np.zeros(padded.shape)
    for at, (y, x) in enumerate(corners):
        row, column = divmod(at, width)
        flat = padded[:, y : y + window, x : x + window].reshape(len(images), -1, images.shape[3])
        first = flat.argmax(1)
        for n, c in np.ndindex(first.shape):
            dy, dx = divmod(first[n, c], window)
            outputs[n, row, column, c] = flat[n, first[n, c], c]
            to_padded[n, y + dy, x + dx, c] += cotangent[n, row, column, c]
    height, width = images.shape[1:3]
    return outputs, to_padded[:, padding : padding + height, padding : padding + width]


@settings(max_examples=10, deadline=None)
@given(
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    window=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 1),
    dtype=st.sampled_from(["float32", "bfloat16"]),
    seed=st.integers(0, 99),
)
def test_max_pool_and_its_gradient(size, window, stride, padding, dtype, seed):
    assume(2 * padding <= window <= min(size) + 2 * padding)
    rng = np.random.default_rng(seed)
    # Four values only, so that most windows hold ties.
    images = jnp.asarray(rng.integers(0, 4, (2, *size, 3)), dtype)

    def largest(images):
        return pool.max_pool(images, window=window, stride=stride, padding=padding)

    @jax.jit
    def run(images, cotangent):
        outputs, pull = jax.vjp(largest, images)
        return outputs, *pull(cotangent)

    shape = jax.eval_shape(largest, images).shape
    cotangent = jnp.asarray(rng.integers(-8, 9, shape), dtype)
    expected = reference_max_pool(
        np.asarray(images, np.float64), np.asarray(cotangent), window, stride, padding
    )
    outputs, gradient = run(images, cotangent)
    assert outputs.dtype == gradient.dtype == images.dtype
    np.testing.assert_array_equal(np.asarray(outputs, np.float64), expected[0])
    np.testing.assert_array_equal(np.asarray(gradient, np.float64), expected[1])


def test_max_pool_elsewhere_than_on_cpu(monkeypatch):
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.standard_normal((2, 9, 8, 3)), jnp.float32)

    def value_and_gradient():
        return jax.value_and_grad(
            lambda x: jnp.sin(pool.max_pool(x, window=3, stride=2, padding=1)).sum()
        )(images)

    here = value_and_gradient()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for found, wanted in zip(value_and_gradient(), here, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_average_pool_counts_the_padding(dtype):
    images = jnp.asarray(np.arange(32.0).reshape(1, 4, 4, 2), dtype)
    outputs = pool.average_pool(images, window=2, stride=2, padding=1)
    padded = np.pad(np.arange(32.0).reshape(4, 4, 2), ((1, 1), (1, 1), (0, 0)))
    expected = padded.reshape(3, 2, 3, 2, 2).mean((1, 3))
    assert outputs.dtype == dtype
    np.testing.assert_array_equal(np.asarray(outputs[0], np.float64), expected)


def test_average_pool_gradient_is_spread_evenly():
    def total(images):
        return pool.average_pool(images, window=2, stride=2).sum()

    gradient = jax.grad(total)(jnp.ones((1, 4, 4, 2)))
    np.testing.assert_allclose(gradient, 0.25)


def test_channel_pool():
    images = jnp.asarray([3.0, 1.0, 2.0, 6.0]).reshape(1, 1, 1, 4)
    assert pool.channel_pool(images, window=2).ravel().tolist() == [3.0, 6.0]
    assert pool.channel_pool(images, window=2, kind="mean").ravel().tolist() == [2.0, 4.0]
    with pytest.raises(ValueError, match="window is 3; allowed: a divisor of the 4 channels"):
        pool.channel_pool(images, window=3)


def test_global_pools():
    images = jnp.asarray(np.arange(24.0).reshape(2, 2, 3, 2), jnp.bfloat16)
    assert pool.global_average_pool(images).tolist() == [[5.0, 6.0], [17.0, 18.0]]
    assert pool.global_max_pool(images).tolist() == [[10.0, 11.0], [22.0, 23.0]]
    assert pool.global_average_pool(images).dtype == jnp.bfloat16


def test_mistakes_are_named():
    images = jnp.zeros((1, 2, 2, 1))
    with pytest.raises(ValueError, match=r"padding is 2; allowed: at most half the window \(3\)"):
        pool.max_pool(images, window=3, stride=1, padding=2)
    with pytest.raises(ValueError, match="window is 3; allowed: at most the padded picture"):
        pool.average_pool(images, window=3, stride=1)
