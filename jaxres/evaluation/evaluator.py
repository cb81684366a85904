"""Evaluating a network on a split: every example once, metrics over exactly those."""

import collections
import copy
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
from jaxres.data.inputs import images_of
from jaxres.data.pictures import Pictures
from jaxres.data.pipeline import eval_batches
from jaxres.distributed.mesh import AXIS, put_batch, replicate
from jaxres.evaluation.metrics import classification_metrics
from jaxres.evaluation.step import make_eval_step
from jaxres.models.pure import Net
from jaxres.ops import target
from jaxres.runtime.screen import track

IN_FLIGHT = 2  # batches dispatched before the oldest one's results are fetched


def resident_of(pictures: Pictures) -> Resident | None:
    """What the device renderer keeps on the devices, as host arrays; None for the host renderer."""
    if pictures.data.render == "host":
        return None
    return decoded(pictures.resident)


class Evaluator:
    """Evaluates weights on one split; compiled once, whatever weights come.

    Rendering is a program of its own: so the network's, which takes long to compile, serves every
    split, whatever its number of digits and photographs.
    """

    def __init__(
        self,
        net: Net,
        config: Config,
        pictures: Pictures,
        mesh: Mesh,
        make_step: Callable[[Net, Config], Callable[..., Any]] = make_eval_step,
    ):
        self._mesh = mesh
        self._set_up_pictures(config)
        results = make_step(net, config)

        def step(variables: Any, images: Any, labels: Any) -> dict[str, Any]:
            return {**results(variables, images, labels), "label": labels}

        # Whole on every device: so each of several processes can fetch all of them.
        self._step = self._compiled(step, (P(), P(AXIS), P(AXIS)), P())
        self._take(pictures)

    def on(self, pictures: Pictures, config: Config | None = None) -> "Evaluator":
        """The same network and program on another split.

        Another `config` renders the pictures by its `data`; what comes out must have the size and
        be normalised as before.
        """
        other = copy.copy(self)
        if config is not None:
            other._set_up_pictures(config)
        other._take(pictures)
        return other

    def _set_up_pictures(self, config: Config) -> None:
        self._config = config
        self._images = self._compiled(partial(images_of, config), (P(), P(AXIS)), P(AXIS))

    def _take(self, pictures: Pictures) -> None:
        devices = self._mesh.size
        size = min(self._config.data.batch_size, len(pictures))
        self._batch_size = -(-size // devices) * devices
        self._pictures = pictures
        self._resident = replicate(self._mesh, resident_of(pictures))

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
        """The same, or nothing if it was `stopped`, as is asked after each batch."""
        waiting: collections.deque[tuple[Any, int]] = collections.deque()
        done: list[Any] = []

        def fetch() -> None:
            results, real = waiting.popleft()
            done.append(jax.tree.map(lambda leaf: leaf[:real], jax.device_get(results)))

        count = math.ceil(len(self._pictures) / self._batch_size)
        with eval_batches(
            self._pictures,
            self._batch_size,
            process=jax.process_index(),
            processes=jax.process_count(),
        ) as batches:
            for batch, real in track(batches, count, "predict, batches", shown):
                on_devices = put_batch(self._mesh, batch, P(AXIS))
                images = self._images(self._resident, on_devices)
                waiting.append((self._step(variables, images, on_devices["label"]), real))
                if len(waiting) > IN_FLIGHT:
                    fetch()
                if stopped():
                    return None
        while waiting:
            fetch()
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *done)

    def __call__(self, variables: dict[str, Any]) -> dict[str, Any]:
        """The metrics of `classification_metrics` for weights (`params`, `stats`)."""
        return self._metrics(self.predict(variables))

    def unless(
        self, stopped: Callable[[], bool], variables: dict[str, Any]
    ) -> dict[str, Any] | None:
        """The same, or nothing if it was `stopped`, as is asked after each batch."""
        results = self._predict(variables, stopped)
        return None if results is None else self._metrics(results)

    def _metrics(self, results: dict[str, np.ndarray]) -> dict[str, Any]:
        return classification_metrics(
            results["label"], results["predicted"], results["loss"], self._pictures.class_names
        )
