"""Evaluating a network on a split: every example once, metrics over exactly those."""

import collections
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxres.config import Config
from jaxres.data.compose.composition import Resident, decoded
from jaxres.data.composed import ComposedDataset
from jaxres.data.inputs import images_of
from jaxres.data.pipeline import eval_batches
from jaxres.distributed.mesh import AXIS, put_batch, replicate
from jaxres.evaluation.metrics import metrics_of
from jaxres.evaluation.step import make_eval_step
from jaxres.models.pure import Net
from jaxres.ops import target
from jaxres.runtime.screen import track

IN_FLIGHT = 2  # batches dispatched before the oldest one's results are fetched


def resident_of(dataset: ComposedDataset) -> Resident | None:
    """What the device renderer keeps on the devices, as host arrays; None for the host renderer."""
    if dataset.data.render == "host":
        return None
    return decoded(dataset.resident)


class Evaluator:
    """A network's evaluation on the devices, compiled once for all weights and splits.

    Rendering is a program of its own, so that the network's, which takes long to compile, serves
    every split, whatever its number of digits and photographs.
    """

    def __init__(
        self,
        net: Net,
        config: Config,
        mesh: Mesh,
        make_step: Callable[[Net, Config], Callable[..., Any]] = make_eval_step,
    ):
        self._config = config
        self._mesh = mesh
        results = make_step(net, config)

        def step(variables: Any, images: Any, labels: Any) -> dict[str, Any]:
            return {**results(variables, images, labels), "label": labels}

        # Whole on every device: so each of several processes can fetch all of them.
        self._step = self._compiled(step, (P(), P(AXIS), P(AXIS)), P())
        self._render = self._renderer(config)

    def on(self, dataset: ComposedDataset, config: Config | None = None) -> "SplitEvaluator":
        """The evaluation on a split.

        Another `config` renders the images by its `data`; what comes out must have the size and
        be normalised as before.
        """
        render = self._render if config is None else self._renderer(config)
        batch_size = (config or self._config).data.batch_size
        return SplitEvaluator(self._step, render, dataset, self._mesh, batch_size)

    def _renderer(self, config: Config) -> Callable[..., Any]:
        return self._compiled(partial(images_of, config), (P(), P(AXIS)), P(AXIS))

    def _compiled(
        self, function: Callable[..., Any], specs: tuple[P, ...], result: P
    ) -> Callable[..., Any]:
        mapped = jax.shard_map(
            function, mesh=self._mesh, in_specs=specs, out_specs=P(AXIS), check_vma=False
        )
        return jax.jit(
            mapped,
            out_shardings=NamedSharding(self._mesh, result),
            compiler_options=target.compiler_options(
                deterministic=self._config.train.deterministic
            ),
        )


class SplitEvaluator:
    """The evaluation of weights on one split."""

    def __init__(
        self,
        step: Callable[..., Any],
        render: Callable[..., Any],
        dataset: ComposedDataset,
        mesh: Mesh,
        batch_size: int,
    ):
        """Put what is rendered from on the devices; `step` and `render` are compiled."""
        self._step = step
        self._render = render
        self._dataset = dataset
        self._mesh = mesh
        devices = mesh.size
        self._batch_size = -(-min(batch_size, len(dataset)) // devices) * devices
        self._resident = replicate(mesh, resident_of(dataset))

    def predict(self, variables: dict[str, Any], *, shown: bool = False) -> dict[str, np.ndarray]:
        """What the step gives for each example, in the order of the split.

        That is `label` and, unless another step was asked for, `loss` and `predicted` class.
        Progress is `shown` on standard error.
        """
        results = self._predict(variables, lambda: False, shown=shown)
        assert results is not None
        return results

    def _predict(
        self, variables: dict[str, Any], stopped: Callable[[], bool], *, shown: bool = False
    ) -> dict[str, np.ndarray] | None:
        """As `predict`, or None once `stopped` says so, which is called after each batch."""
        waiting: collections.deque[tuple[Any, int]] = collections.deque()
        done: list[Any] = []

        def fetch() -> None:
            results, real = waiting.popleft()
            done.append(jax.tree.map(lambda leaf: leaf[:real], jax.device_get(results)))

        count = math.ceil(len(self._dataset) / self._batch_size)
        with eval_batches(
            self._dataset,
            self._batch_size,
            process=jax.process_index(),
            processes=jax.process_count(),
        ) as batches:
            for batch, real in track(batches, count, "predict, batches", shown):
                on_devices = put_batch(self._mesh, batch, P(AXIS))
                images = self._render(self._resident, on_devices)
                waiting.append((self._step(variables, images, on_devices["label"]), real))
                if len(waiting) > IN_FLIGHT:
                    fetch()
                if stopped():
                    return None
        while waiting:
            fetch()
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *done)

    def __call__(self, variables: dict[str, Any]) -> dict[str, Any]:
        """The metrics of `metrics_of` for weights (`params`, `stats`)."""
        return self.metrics(self.predict(variables))

    def evaluate_until(
        self, stopped: Callable[[], bool], variables: dict[str, Any]
    ) -> dict[str, Any] | None:
        """The metrics for weights, or None once `stopped` says so, called after each batch."""
        results = self._predict(variables, stopped)
        return None if results is None else self.metrics(results)

    def metrics(self, results: dict[str, np.ndarray]) -> dict[str, Any]:
        """The metrics of what `predict` gave."""
        return metrics_of(results, self._dataset.class_names)
