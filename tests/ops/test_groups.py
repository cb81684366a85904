"""Work in groups gives what work in one piece gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxres.ops.groups import count_groups, map_groups, sum_groups

IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((6, 5, 3)), jnp.float32)


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_groups_agree_with_one_piece(groups):
    def double(images):
        return 2 * images[:, ::2]

    found = jax.jit(lambda images: map_groups(double, (images,), groups))(IMAGES)
    np.testing.assert_array_equal(found, double(IMAGES))

    def products(images, others):
        return jnp.einsum("nrc,nrd->cd", images, others)

    total = jax.jit(lambda images: sum_groups(products, (images, images + 1), groups))(IMAGES)
    np.testing.assert_allclose(total, products(IMAGES, IMAGES + 1), rtol=1e-5)


def test_sums_are_float32_at_least():
    many = jnp.ones((512, 1), jnp.bfloat16)
    assert sum_groups(lambda part: part.sum(0), (many,), 512) == 512  # bfloat16 stays at 256


def test_number_of_groups():
    assert [count_groups(12, wanted) for wanted in (1, 4, 5, 7, 40)] == [1, 4, 6, 12, 12]
