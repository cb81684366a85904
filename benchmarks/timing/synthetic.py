"""Our training step on synthetic data that stays on the devices: what `step` and others time."""

import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxres.config import Config
from jaxres.distributed import strategy
from jaxres.distributed.mesh import check_batch, make_mesh, replicate
from jaxres.models.build import network
from jaxres.training import optim, transfer
from jaxres.training.state import new_state
from jaxres.training.step import make_train_step

TOTAL_STEPS = 1000  # of the learning-rate schedule; it has no part in the speed


class Training:
    """The compiled step of a run's settings, its state and one batch of random images.

    A call runs `config.train.steps_per_call` steps. The images come ready (no plan, nothing
    resident), so this is the step that `data.render host` runs.
    """

    compiled: jax.stages.Compiled
    compile_s: float

    def __init__(
        self,
        config: Config,
        *,
        classes: int,
        devices: int | None = None,
        compiler_options: Mapping[str, Any] | None = None,
    ):
        """Build and compile for the first `devices` devices (default: all).

        Raises:
            InputError: there are fewer devices, or the batch does not divide over them.
        """
        self.config = config
        self.mesh = make_mesh(devices)
        parts = config.optim.accumulate_steps
        check_batch(config.data.batch_size, self.mesh.size, parts)
        self.parallel = strategy.create(config.train, self.mesh)
        self.state, jitted = begin(config, self.parallel, classes=classes, total_steps=TOTAL_STEPS)
        self.steps_per_call = config.train.steps_per_call
        self.batch = self.parallel.put_batch(_batch(config, classes), self.steps_per_call)
        began = time.perf_counter()
        lowered = jitted.lower(self.state, None, self.batch)
        self.compiled = lowered.compile(compiler_options=dict(compiler_options or {}) or None)
        self.compile_s = time.perf_counter() - began

    def run(self, steps: int) -> None:
        """That many steps; blocks once, at the end.

        Raises:
            ValueError: no multiple of the steps of a call.
        """
        calls, rest = divmod(steps, self.steps_per_call)
        if rest or calls < 1:
            raise ValueError(f"steps is {steps}; allowed: multiples of {self.steps_per_call}")
        for _ in range(calls):
            metrics = self._call()
        jax.block_until_ready((self.state, metrics))

    def dispatch_s(self) -> float:
        """Seconds of the host until one call returns, with the devices idle before."""
        jax.block_until_ready(self.state)
        began = time.perf_counter()
        metrics = self._call()
        seconds = time.perf_counter() - began
        jax.block_until_ready((self.state, metrics))
        return seconds

    def _call(self) -> dict[str, jax.Array]:
        self.state, metrics = self.compiled(self.state, None, self.batch)
        return metrics


def begin(
    config: Config, parallel: strategy.Parallel, *, classes: int, total_steps: int
) -> tuple[Any, Any]:
    """The state before the first step, on the devices, and the call of a run: jitted or pmapped."""
    net = network(config, classes=classes)
    _, trained, optimizer = transfer.first_phase(config, net, total_steps)
    rate = optim.learning_rate(config.optim, total_steps)
    ema = config.optim.ema_decay > 0
    state = new_state(net.params, net.stats, optimizer, ema=ema, trained=trained)
    step = make_train_step(net, optimizer, rate, config, trained=trained)
    call = parallel.compile(step, config.train.steps_per_call)
    return parallel.enter(replicate(parallel.mesh, state)), call


def _batch(config: Config, classes: int) -> dict[str, np.ndarray]:
    """Images and labels of as many steps as a call runs, drawn from `train.seed`."""
    data, steps = config.data, config.train.steps_per_call
    shape = (data.batch_size,) if steps == 1 else (steps, data.batch_size)
    random = np.random.default_rng(config.train.seed)
    return {
        "image": random.integers(0, 256, (*shape, data.image_size, data.image_size, 3), np.uint8),
        "label": random.integers(0, classes, shape, np.int32),
    }
