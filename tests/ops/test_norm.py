"""Batch normalisation with its written-out gradient against float64 automatic differentiation."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jaxres.ops.norm import batch_norm, moments, normalise, sums
from jaxres.ops.target import target_backend

TOLERANCE = {"float32": 5e-5, "bfloat16": 3e-2}
KINK = {"float32": 1e-4, "bfloat16": 3e-2}  # within which rounding decides
EPSILON = 1e-5


def reference(images, scale, bias, shortcut):
    """Ioffe and Szegedy's algorithm 1 and an addition, for autodiff in float64."""
    mean, var = images.mean((0, 1, 2)), images.var((0, 1, 2))
    outputs = scale * (images - mean) / jnp.sqrt(var + EPSILON) + bias
    return outputs if shortcut is None else outputs + shortcut


@settings(max_examples=5, deadline=None)
@given(
    shape=st.tuples(st.integers(2, 5), st.integers(1, 6), st.integers(1, 6), st.integers(1, 9)),
    has_shortcut=st.booleans(),
    relu=st.booleans(),
    max_value=st.sampled_from([None, 0.75]),
    dtype=st.sampled_from(["float32", "bfloat16"]),
    offset=st.sampled_from([0.0, 3.0]),
    backend=st.sampled_from(["cpu", "gpu"]),
)
def test_outputs_and_gradients(shape, has_shortcut, relu, max_value, dtype, offset, backend):
    # Two values become +1 and -1 whatever they are: their gradient is all cancellation.
    assume(math.prod(shape[:3]) > 2)
    rng = np.random.default_rng(0)
    images, shortcut, cotangent = (jnp.asarray(rng.standard_normal(shape), dtype) for _ in "abc")
    images = images + jnp.asarray(offset, dtype)
    scale, bias = (jnp.asarray(rng.standard_normal(shape[-1]) + 1, jnp.float32) for _ in "ab")
    inputs = (images, scale, bias) + ((shortcut,) if has_shortcut else ())

    def ours(*inputs):
        return batch_norm(*inputs, epsilon=EPSILON, relu=relu, max_value=max_value)[0]

    with jax.enable_x64(True):
        wide = [jnp.asarray(np.asarray(value, np.float64)) for value in inputs]

        def theirs(images, scale, bias, shortcut=None):
            return reference(images, scale, bias, shortcut)

        before, pull_theirs = jax.vjp(jax.jit(theirs), *wide)
        before = np.asarray(before)
        least, most = (0, max_value or np.inf) if relu else (-np.inf, np.inf)
        # At a kink the gradient is a matter of rounding: such values get none on either side.
        kinks = np.minimum(abs(before - least), abs(before - most)) < KINK[dtype]
        cotangent = jnp.where(kinks, 0, cotangent).astype(dtype)
        passed = (before > least) & (before < most)
        gradients = pull_theirs(jnp.asarray(np.asarray(cotangent, np.float64) * passed))
        expected = (np.clip(before, least, most), *gradients)
    with target_backend(backend):
        outputs, pull = jax.vjp(jax.jit(ours), *inputs)  # one program, not sixty small ones
        found = (outputs, *pull(cotangent))
    for ours_is, wanted in zip(found, expected, strict=True):
        wanted = np.asarray(wanted)
        scale_of = max(np.abs(wanted).max(), 1.0)
        error = np.abs(np.asarray(ours_is, np.float64) - wanted).max() / scale_of
        assert error < TOLERANCE[dtype]
    assert found[0].dtype == found[1].dtype == jnp.dtype(dtype)


@pytest.mark.parametrize(
    ("height", "width", "rows"), [(56, 56, 8), (7, 7, 7), (31, 32, 1), (3, 700, 1)]
)
def test_a_gpu_sums_strips_of_at_most_512_pixels(height, width, rows):
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.standard_normal((2, height, width, 3)), jnp.float32)
    with target_backend("gpu"):
        program = jax.make_jaxpr(lambda images: sums(images, images * 2))(images)
        total, doubled = sums(images, images * 2)
    assert f"f32[{2 * height // rows},{rows},{width},3]" in str(program)
    wanted = np.asarray(images, np.float64).sum((0, 1, 2))
    np.testing.assert_allclose(total, wanted, atol=1e-3)
    np.testing.assert_allclose(doubled, 2 * wanted, atol=2e-3)


def test_moments_are_those_of_the_batch_and_pass_no_gradient():
    images = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3, 3, 2)) + 5, jnp.float32)
    ones = jnp.ones(2)

    def moments(images):
        _, mean, var = batch_norm(images, ones, ones, epsilon=EPSILON, relu=False)
        return mean.sum() + var.sum()

    _, mean, var = batch_norm(images, ones, ones, epsilon=EPSILON, relu=False)
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(var, images.var((0, 1, 2)), rtol=1e-4)
    assert not jax.grad(moments)(images).any()


@pytest.mark.parametrize("relu", [True, False])
def test_backward_keeps_images_results_and_numbers_per_channel(relu):
    """No array of the images' size is kept but the images and, for the mask, the result."""
    images = jnp.ones((4, 8, 8, 3))
    ones = jnp.ones(3)
    _, pull = jax.vjp(
        lambda images: batch_norm(images, ones, ones, epsilon=EPSILON, relu=relu)[0], images
    )
    kept = [leaf for leaf in jax.tree.leaves(pull) if leaf.size == images.size]
    assert len(kept) == (2 if relu else 1)


def test_given_moments_normalise_alike():
    images = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3, 3, 2)), jnp.float32)
    scale, bias = jnp.array([1.0, -2.0]), jnp.array([0.5, 0.0])
    outputs, mean, var = batch_norm(images, scale, bias, images, epsilon=EPSILON, relu=True)
    again = normalise(images, mean, var, scale, bias, images, epsilon=EPSILON, relu=True)
    np.testing.assert_array_equal(outputs, again)


@pytest.mark.parametrize("ratio", [1, 10, 100])
def test_the_error_of_one_pass_is_as_documented(ratio: int) -> None:
    images = np.random.default_rng(0).standard_normal((64, 32, 32, 16)) + ratio
    images = images.astype(np.float32)
    _, found = jax.jit(partial(moments, axis_name=None))(images)
    np.testing.assert_allclose(
        found, images.astype(np.float64).var((0, 1, 2)), rtol=1e-6 * ratio**2
    )
