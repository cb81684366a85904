"""The peer `derived_norm`: our own step with the gradient of batch norm left to JAX.

What the written-out gradient of `jaxres.ops.norm` is worth; the rest of the step is the same.
"""

from unittest import mock

import jax
from jaxtyping import Array

from benchmarks import measure
from benchmarks.peers import Peer
from benchmarks.synthetic import Training
from benchmarks.workload import Workload, settings
from jaxres import __version__
from jaxres.models import blocks
from jaxres.ops import norm


def build(work: Workload, platform: str) -> Peer:
    """Compile our step with the other batch norm, on JAX's first device."""
    del platform  # ours has no choice of its own
    with mock.patch.object(blocks, "batch_norm", batch_norm):
        training = Training(settings(work), classes=work.classes, devices=1)
    said = {
        "batch_norm": "gradient derived by JAX",
        "peak_memory_mib": measure.peak_memory_mib(training.compiled),
    }
    return Peer(training.run, __version__, said, training.compile_s)


def batch_norm(
    images: Array,
    scale: Array,
    bias: Array,
    shortcut: Array | None = None,
    *,
    epsilon: float,
    rectify: bool,
    ceiling: float | None = None,
    axis_name: str | None = None,
) -> tuple[Array, Array, Array]:
    """What `norm.batch_norm` gives, without its gradient."""
    mean, var = norm.moments(images, axis_name)
    given = {"epsilon": epsilon, "rectify": rectify, "ceiling": ceiling}
    outputs = norm.normalise(images, mean, var, scale, bias, shortcut, **given)
    return outputs, *jax.lax.stop_gradient((mean, var))
