"""Means over devices, on a GPU of everything in one row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxres.distributed.mesh import AXIS, make_mesh
from jaxres.ops.target import target_backend
from jaxres.training import averages


def tree(seed: int) -> dict[str, jax.Array]:
    """Leaves of as many axes as a step averages, with four devices' parts in front."""
    rng = np.random.default_rng(seed)
    shapes = {"kernel": (3, 3, 2, 4), "dense": (5, 2), "scale": (4,), "loss": ()}
    return {
        name: jnp.asarray(rng.standard_normal((4, *shape)), jnp.float32)
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize("devices", [1, 4])
def test_a_gpu_averages_all_in_one_message(devices: int) -> None:
    given = {name: leaf[:devices] for name, leaf in tree(0).items()}

    def mean(tree: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return averages.mean(jax.tree.map(lambda leaf: leaf[0], tree), AXIS)

    def program() -> jax.stages.Traced:
        mapped = jax.shard_map(
            mean, mesh=make_mesh(devices), in_specs=P(AXIS), out_specs=P(), check_vma=False
        )
        return jax.jit(mapped).trace(given)

    plain = program()
    with target_backend("gpu"):
        rowed = program()
    for name, leaf in rowed.lower().compile()(given).items():
        np.testing.assert_allclose(leaf, given[name].mean(0), rtol=1e-6)
        np.testing.assert_array_equal(leaf, plain.lower().compile()(given)[name])
    size = sum(leaf[0].size for leaf in given.values()) if devices > 1 else 3 * 3 * 2 * 4 + 5 * 2
    assert f"f32[{size}] = psum" in str(rowed.jaxpr).replace("psum_invariant", "psum")


def test_norms_are_the_same_in_one_row() -> None:
    leaves = tree(1)
    with target_backend("gpu"):
        found = averages.global_norm(leaves)
    np.testing.assert_allclose(found, averages.global_norm(leaves), rtol=1e-6)
