"""The plain CNN: parameters and cost counted by hand, sizes and heads."""

import jax
import jax.numpy as jnp
import pytest

from jaxres.models.count import count
from jaxres.models.pure import abstract_net


def test_parameters_and_cost_are_those_counted_by_hand():
    cost = count("all_cnn_small", image_size=28, classes=10)
    kernels = 25 * 3 * 32 + 9 * 32 * 64 + 9 * 64 * 64
    norms = 2 * (32 + 64 + 64)
    assert cost.parameters == kernels + norms + 49 * 64 * 10 + 10 == 89_386
    assert cost.parameters_with_stats == cost.parameters + norms
    products = 14**2 * 25 * 3 * 32 + 7**2 * (9 * 32 * 64 + 9 * 64 * 64) + 49 * 64 * 10
    assert cost.gflop == pytest.approx(2 * products / 1e9)
    assert cost.activations == 14**2 * 32 + 2 * 7**2 * 64 + 10


@pytest.mark.parametrize(("size", "side"), [(28, 7), (29, 8), (32, 8), (65, 17)])
@pytest.mark.parametrize("head", ["average", "flatten"])
def test_any_size_from_28_pixels(size, side, head):
    net = abstract_net("all_cnn_small", image_size=size, classes=7, head=head)
    inputs = 64 * side**2 if head == "flatten" else 64
    assert net.params["head"]["linear"]["kernel"].shape == (inputs, 7)
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    logits, stats = jax.eval_shape(
        lambda *arrays: net.apply(*arrays, train=True), net.params, net.stats, images
    )
    assert logits.shape == (2, 7)
    assert jax.tree.structure(stats) == jax.tree.structure(net.stats)
