"""Pooling against NumPy, with the gradient of ties."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from jaxres.ops import pool
from tests.marked import slow


def windows(padded, window, stride):
    """Corner pairs of the windows of padded images."""
    starts = [range(0, side - window + 1, stride) for side in padded.shape[1:3]]
    return [(y, x) for y in starts[0] for x in starts[1]], (len(starts[0]), len(starts[1]))


def reference_max_pool(images, cotangent, window, stride, padding):
    """Maximum of each window and the gradient to its first maximum, by loops."""
    padded = np.pad(images, ((0, 0), *padding, (0, 0)), constant_values=-np.inf)
    corners, (height, width) = windows(padded, window, stride)
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
    (height, width), ((top, _), (left, _)) = images.shape[1:3], padding
    return outputs, to_padded[:, top : top + height, left : left + width]


def same_padding(side, window, stride):
    """TensorFlow's, by its definition."""
    total = max((math.ceil(side / stride) - 1) * stride + window - side, 0)
    return total // 2, total - total // 2


def check_max_pool(size, window, stride, padding, around, *, dtype, seed):
    """Compare `padding` with loops over images that are padded by `around`."""
    rng = np.random.default_rng(seed)
    # Four values only, so that most windows hold ties; below zero, so that no padding is as large.
    images = jnp.asarray(rng.integers(-4, 0, (2, *size, 3)), dtype)

    def largest(images):
        return pool.max_pool(images, window=window, stride=stride, padding=padding)

    @jax.jit
    def run(images, cotangent):
        outputs, pull = jax.vjp(largest, images)
        return outputs, *pull(cotangent)

    shape = jax.eval_shape(largest, images).shape
    cotangent = jnp.asarray(rng.integers(-8, 9, shape), dtype)
    expected = reference_max_pool(
        np.asarray(images, np.float64), np.asarray(cotangent), window, stride, around
    )
    outputs, gradient = run(images, cotangent)
    assert outputs.dtype == gradient.dtype == images.dtype
    np.testing.assert_array_equal(np.asarray(outputs, np.float64), expected[0])
    np.testing.assert_array_equal(np.asarray(gradient, np.float64), expected[1])


SIZES = st.tuples(st.integers(1, 7), st.integers(1, 7))
PADS = st.tuples(st.integers(0, 1), st.integers(0, 1))


@settings(max_examples=5, deadline=None)
@given(
    size=SIZES,
    window=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.one_of(st.integers(0, 1), st.tuples(PADS, PADS)),
    dtype=st.sampled_from(["float32", "bfloat16"]),
    seed=st.integers(0, 99),
)
def test_max_pool_and_its_gradient(size, window, stride, padding, dtype, seed):
    around = ((padding,) * 2,) * 2 if isinstance(padding, int) else padding
    assume(2 * max(map(max, around)) <= window)
    assume(all(window <= side + sum(pads) for side, pads in zip(size, around, strict=True)))
    check_max_pool(size, window, stride, padding, around, dtype=dtype, seed=seed)


@settings(max_examples=5, deadline=None)
@given(
    size=SIZES,
    window=st.integers(1, 4),
    stride=st.integers(1, 3),
    dtype=st.sampled_from(["float32", "bfloat16"]),
    seed=st.integers(0, 99),
)
@example((7, 6), 3, 2, "float32", 0)  # Xception's: one pixel around, and one after
def test_max_pool_with_the_padding_of_tensorflow(size, window, stride, dtype, seed):
    around = tuple(same_padding(side, window, stride) for side in size)
    check_max_pool(size, window, stride, "SAME", around, dtype=dtype, seed=seed)


@pytest.mark.parametrize("padding", [1, "SAME"])
def test_max_pool_elsewhere_than_on_cpu(padding, monkeypatch):
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.standard_normal((2, 9, 8, 3)), jnp.float32)

    def value_and_gradient():
        return jax.value_and_grad(
            lambda x: jnp.sin(pool.max_pool(x, window=3, stride=2, padding=padding)).sum()
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


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(7, 7, 7), (7, 9, 7), (1, 2, 7), slow(8, 8, 7), slow(10, 3, 4), slow(5, 6, 1)],
)
def test_adaptive_average_pool_and_its_gradient(height, width, size, dtype):
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.standard_normal((2, height, width, 3)), dtype)
    cotangent = jnp.asarray(rng.standard_normal((2, size, size, 3)), dtype)
    outputs, pull = jax.vjp(lambda images: pool.adaptive_average_pool(images, size), images)
    (gradient,) = pull(cotangent)
    known, share = (np.asarray(array, np.float64) for array in (images, cotangent))
    means, to_images = np.zeros(share.shape), np.zeros(known.shape)
    for i, j in np.ndindex(size, size):
        rows = slice(math.floor(i * height / size), math.ceil((i + 1) * height / size))
        columns = slice(math.floor(j * width / size), math.ceil((j + 1) * width / size))
        held = known[:, rows, columns]
        means[:, i, j] = held.mean((1, 2))
        to_images[:, rows, columns] += (share[:, i, j] / np.prod(held.shape[1:3]))[:, None, None]
    assert outputs.dtype == gradient.dtype == dtype
    tolerance = 1e-6 if dtype == "float32" else 4e-3
    for found, wanted in ((outputs, means), (gradient, to_images)):
        np.testing.assert_allclose(
            np.asarray(found, np.float64), wanted, rtol=tolerance, atol=tolerance
        )


def test_global_pools():
    images = jnp.asarray(np.arange(24.0).reshape(2, 2, 3, 2), jnp.bfloat16)
    assert pool.global_average_pool(images).tolist() == [[5.0, 6.0], [17.0, 18.0]]
    assert pool.global_max_pool(images).tolist() == [[10.0, 11.0], [22.0, 23.0]]
    assert pool.global_average_pool(images).dtype == jnp.bfloat16


def test_mistakes_are_named():
    images = jnp.zeros((1, 2, 2, 1))
    with pytest.raises(ValueError, match=r"padding is 2; allowed: at most half the window \(3\)"):
        pool.max_pool(images, window=3, stride=1, padding=2)
    with pytest.raises(ValueError, match=r"padding is \(\(0, 0\), \(0, 2\)\); allowed: at most h"):
        pool.max_pool(images, window=2, stride=1, padding=((0, 0), (0, 2)))
    with pytest.raises(ValueError, match="window is 3; allowed: at most the padded image"):
        pool.average_pool(images, window=3, stride=1)
