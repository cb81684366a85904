"""The peer `flax`: plain Flax NNX, the module split once and the step under `jax.jit`.

NNX's own `nnx.jit` walks the module in Python at every call: 20 ms against 5 for ResNet-50.
"""

import time
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from flax import nnx

from benchmarks.peers import Peer
from benchmarks.peers.flax_resnet import ResNet
from benchmarks.peers.resnets import RESNETS
from benchmarks.timing.workload import LEARNING_RATE, MEAN, MOMENTUM, STD, Workload


def build(work: Workload, platform: str) -> Peer:
    """Compile the step; the state is donated."""
    model = ResNet(
        RESNETS[work.model],
        classes=work.classes,
        dtype=jnp.dtype(work.dtype),
        rngs=nnx.Rngs(0),
    )
    graph, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    optimizer = optax.sgd(LEARNING_RATE, MOMENTUM)

    def loss_of(params: Any, stats: Any, images: jax.Array, labels: jax.Array) -> Any:
        values = (images.astype(jnp.float32) / 255 - jnp.array(MEAN)) / jnp.array(STD)
        model = nnx.merge(graph, params, stats, copy=True)
        logits = model(values.astype(work.dtype)).astype(jnp.float32)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return losses.mean(), nnx.state(model, nnx.BatchStat)

    def step(state: Any, images: jax.Array, labels: jax.Array) -> Any:
        params, stats, opt_state = state
        value_and_grad = jax.value_and_grad(loss_of, has_aux=True)
        (loss, stats), grads = value_and_grad(params, stats, images, labels)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), stats, opt_state), loss

    device = jax.devices(platform)[0]
    images, labels = jax.device_put((work.images, work.labels), device)
    state = jax.device_put((params, stats, optimizer.init(params)), device)
    began = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=0).lower(state, images, labels).compile()
    compile_s = time.perf_counter() - began

    def run(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            state, _ = compiled(state, images, labels)
        jax.block_until_ready(state)

    settings = {"model": "benchmarks.peers.flax_resnet", "step": "jax.jit, state donated"}
    return Peer(run, flax.__version__, settings, compile_s)
