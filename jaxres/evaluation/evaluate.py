"""Evaluating a network on a split: every example once, metrics over exactly those."""

import collections
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxres.config import Config
from jaxres.data.pipeline import Pictures, eval_batches
from jaxres.data.render_device import Resident
from jaxres.evaluation.metrics import classification_metrics
from jaxres.models.pure import Net
from jaxres.training.parallel import put_batch, replicate
from jaxres.training.step import AXIS, make_eval_step

IN_FLIGHT = 2  # batches dispatched before the oldest one's results are fetched


def resident_of(pictures: Pictures) -> Resident | None:
    """What the device renderer keeps on the devices, as host arrays; None for the host renderer."""
    if pictures.render == "host":
        return None
    return Resident(digits=pictures.source.images, photos=pictures.photos)


class Evaluator:
    """Evaluates weights on one split; compiled once, whatever weights come."""

    def __init__(self, net: Net, config: Config, pictures: Pictures, mesh: Mesh):
        self._pictures = pictures
        self._mesh = mesh
        devices = mesh.size
        self._batch_size = -(-min(config.data.batch_size, len(pictures)) // devices) * devices
        self._resident = replicate(mesh, resident_of(pictures))
        self._step = jax.jit(
            jax.shard_map(
                make_eval_step(net, config),
                mesh=mesh,
                in_specs=(P(), P(), P(AXIS)),
                out_specs=P(AXIS),
                check_vma=False,
            )
        )

    def predict(self, variables: dict[str, Any]) -> dict[str, np.ndarray]:
        """Per-example `loss` and `predicted` class, in the order of the split."""
        waiting: collections.deque[tuple[Any, int]] = collections.deque()
        done: list[Any] = []

        def fetch() -> None:
            results, real = waiting.popleft()
            done.append(jax.tree.map(lambda leaf: leaf[:real], jax.device_get(results)))

        for batch, real in eval_batches(self._pictures, self._batch_size):
            on_devices = put_batch(self._mesh, batch, P(AXIS))
            waiting.append((self._step(variables, self._resident, on_devices), real))
            if len(waiting) > IN_FLIGHT:
                fetch()
        while waiting:
            fetch()
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *done)

    def __call__(self, variables: dict[str, Any]) -> dict[str, Any]:
        """The metrics of `classification_metrics` for weights (`params`, `stats`)."""
        results = self.predict(variables)
        source = self._pictures.source
        return classification_metrics(
            source.labels, results["predicted"], results["loss"], source.class_names
        )
