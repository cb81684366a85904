"""Where the step meets the devices: mesh, shardings, donation and compilation, stated once.

Both ways run the same step function with the axis name `data` and give the same numbers. Between
them and the outside the state is one global array per leaf, the same on every device, so that
checkpoints and evaluation need not know which way trained it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxres.config.train import TrainConfig
from jaxres.distributed.mesh import AXIS, put_batch, replicate
from jaxres.ops import target

PyTree = Any
Step = Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]  # state, resident, batch


def scanned(step: Step, steps: int) -> Step:
    """`step` as it is, or a scan of `steps` of it."""
    if steps == 1:
        return step

    def many(state: PyTree, resident: PyTree, batches: PyTree) -> tuple[PyTree, PyTree]:
        return jax.lax.scan(lambda carry, batch: step(carry, resident, batch), state, batches)

    return many


class Jit:
    """`jax.jit(jax.shard_map(step))`: the default."""

    def __init__(self, mesh: Mesh, *, deterministic: bool = False):
        self.mesh = mesh
        self._deterministic = deterministic

    def compile(self, step: Step, steps: int) -> Callable[..., tuple[PyTree, PyTree]]:
        """(state, resident, batch) -> (state, metrics) over all devices, `steps` steps at a time.

        The state is donated. With more than one step the leaves of batch and metrics have the
        steps in front.
        """
        # check_vma=False keeps the gradient of replicated parameters per device, as in pmap:
        # the step averages it itself.
        mapped = jax.shard_map(
            scanned(step, steps),
            mesh=self.mesh,
            in_specs=(P(), P(), self._spec(steps)),
            out_specs=(P(), P()),
            check_vma=False,
        )
        options = target.compiler_options(deterministic=self._deterministic)
        return jax.jit(mapped, donate_argnums=0, compiler_options=options)

    def enter(self, state: PyTree) -> PyTree:
        """A state of replicated arrays as the compiled step takes it."""
        return state

    def leave(self, state: PyTree) -> PyTree:
        """A state of the compiled step as replicated arrays: a copy, which donation spares."""
        return _copy(state)

    def put_batch(self, batch: PyTree, steps: int) -> PyTree:
        """This process's part of a host batch on its devices."""
        return put_batch(self.mesh, batch, self._spec(steps))

    def put_resident(self, resident: PyTree) -> PyTree:
        """Host arrays, whole on every device."""
        return replicate(self.mesh, resident)

    def fetch(self, metrics: PyTree) -> PyTree:
        """Metrics of calls on the host, each with its steps in front."""
        return jax.tree.map(np.atleast_1d, jax.device_get(metrics))

    def _spec(self, steps: int) -> P:
        return P(AXIS) if steps == 1 else P(None, AXIS)


class Pmap:
    """`jax.pmap(step)`: every leaf has the devices in front."""

    def __init__(self, mesh: Mesh):
        self.mesh = mesh
        self._sharding = NamedSharding(mesh, P(AXIS))

    def compile(self, step: Step, steps: int) -> Callable[..., tuple[PyTree, PyTree]]:
        """See `Jit.compile`. `pmap` takes no compiler options, so on CPU it is the slower one."""
        return jax.pmap(
            scanned(step, steps),
            axis_name=AXIS,
            donate_argnums=0,
            devices=list(self.mesh.devices.flat),
        )

    def enter(self, state: PyTree) -> PyTree:
        """See `Jit.enter`."""
        count = self.mesh.size

        def spread(leaf: jax.Array) -> jax.Array:
            shards = [shard.data[None] for shard in leaf.addressable_shards]
            shape = (count, *leaf.shape)
            return jax.make_array_from_single_device_arrays(shape, self._sharding, shards)

        return jax.tree.map(spread, state)

    def leave(self, state: PyTree) -> PyTree:
        """See `Jit.leave`."""
        sharding = NamedSharding(self.mesh, P())

        def join(leaf: jax.Array) -> jax.Array:
            shards = [shard.data.reshape(leaf.shape[1:]) for shard in leaf.addressable_shards]
            return jax.make_array_from_single_device_arrays(leaf.shape[1:], sharding, shards)

        return _copy(jax.tree.map(join, state))

    def put_batch(self, batch: PyTree, steps: int) -> PyTree:
        """See `Jit.put_batch`."""
        local = len(self.mesh.local_devices)

        def devices_first(leaf: np.ndarray) -> np.ndarray:
            if steps == 1:
                return leaf.reshape(local, -1, *leaf.shape[1:])
            split = leaf.reshape(steps, local, -1, *leaf.shape[2:])
            return np.moveaxis(split, 1, 0)

        return put_batch(self.mesh, jax.tree.map(devices_first, batch), P(AXIS))

    def put_resident(self, resident: PyTree) -> PyTree:
        """See `Jit.put_resident`."""
        return self.enter(replicate(self.mesh, resident))

    def fetch(self, metrics: PyTree) -> PyTree:
        """See `Jit.fetch`."""
        here = jax.tree.map(lambda leaf: leaf.addressable_data(0), metrics)
        return jax.tree.map(lambda leaf: np.atleast_1d(leaf[0]), jax.device_get(here))


Parallel = Jit | Pmap


def create(settings: TrainConfig, mesh: Mesh) -> Parallel:
    """The way that `train.parallel` names, compiled as `train.deterministic` says."""
    if settings.parallel == "pmap":
        return Pmap(mesh)
    return Jit(mesh, deterministic=settings.deterministic)


_copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))
