"""Arrays that are materialised are computed once; the compiler honours it only where it is told."""

import jax
import jax.numpy as jnp
import pytest

from jaxres.ops import target


def program(options):
    def two_readers(images):
        once = target.materialise(jnp.maximum(images * 2 + 1, 0))
        return once + 1, once.sum()

    compiled = jax.jit(two_readers, compiler_options=options).lower(jnp.ones((4, 8))).compile()
    plus_one, total = compiled(jnp.ones((4, 8)))
    assert (plus_one == 4).all()
    assert total == 96
    return str(compiled.as_text())


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="barriers are placed on CPU only")
def test_barriers_stay_in_programs_with_our_options():
    assert "opt-barrier" in program(target.compiler_options())
    assert "opt-barrier" not in program({})


def test_other_backends_get_neither_barrier_nor_option():
    with target.target_backend("gpu"):
        assert target.compiler_options() == {}
        assert target.compiler_options(deterministic=True) == {"xla_gpu_deterministic_ops": True}
        assert "optimization_barrier" not in str(jax.make_jaxpr(target.materialise)(jnp.ones(2)))
