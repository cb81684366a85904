"""Where the step meets the devices: mesh, shardings, donation and compilation, stated once.

Both ways run the same step function with the axis name `data` and give the same numbers. Between
them and the outside the state is one global array per leaf, the same on every device, so that
checkpoints and evaluation need not know which way trained it.
"""

import collections
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxres.config.train import TrainConfig
from jaxres.errors import InputError
from jaxres.ops import target
from jaxres.training.step import AXIS, Step

PyTree = Any


def make_mesh(count: int | None) -> Mesh:
    """A mesh of the first `count` devices (default: all) along one axis, `data`.

    Raises:
        InputError: there are fewer devices.
    """
    devices = jax.devices()
    if count is not None and count > len(devices):
        raise InputError(
            f"train.devices is {count}; allowed: 1 to {len(devices)} (the devices here)"
        )
    if count not in (None, len(devices)) and jax.process_count() > 1:
        raise InputError(
            f"train.devices is {count}, with {jax.process_count()} processes; allowed: all "
            f"{len(devices)} devices, so that none of the processes is left without"
        )
    chosen = devices[:count]
    if jax.process_count() > 1:
        # Process after process, as the parts of a batch are: JAX's own order may mix them.
        _require_as_many(devices)
        chosen = sorted(devices, key=lambda device: (device.process_index, device.id))
        return Mesh(np.array(chosen), (AXIS,), axis_types=(AxisType.Auto,))
    return jax.make_mesh((len(chosen),), (AXIS,), axis_types=(AxisType.Auto,), devices=chosen)


def _require_as_many(devices: Sequence[Any]) -> None:
    """Refuse processes with different numbers of devices."""
    counts = collections.Counter(device.process_index for device in devices)
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} in process {index}" for index, count in sorted(counts.items()))
        raise InputError(
            f"the processes have different numbers of devices ({listed}); "
            "allowed: the same number in each"
        )


def check_batch(batch_size: int, devices: int, parts: int) -> None:
    """Refuse a global batch that does not divide over the devices and accumulation parts.

    Raises:
        InputError: with the nearest sizes that do.
    """
    unit = devices * parts
    if batch_size % unit == 0:
        return
    near = [size for size in (batch_size // unit * unit, -(-batch_size // unit) * unit) if size]
    times = f" x {parts} accumulation parts" if parts > 1 else ""
    raise InputError(
        f"data.batch_size is {batch_size}, which does not divide over {devices} devices{times}; "
        f"nearest allowed: {' or '.join(map(str, near))} (or other train.devices)"
    )


def replicate(mesh: Mesh, tree: PyTree) -> PyTree:
    """Host or device arrays as global arrays, whole on every device of the mesh.

    Of several processes each must give the same.
    """
    sharding = NamedSharding(mesh, P())
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def spread(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        return _from_local(sharding, jax.device_get(leaf))

    return jax.tree.map(spread, tree)


def put_batch(mesh: Mesh, batch: PyTree, spec: P) -> PyTree:
    """This process's part of a host batch as global arrays sharded by `spec`."""
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(partial(_from_local, sharding), batch)


def _from_local(sharding: NamedSharding, leaf: np.ndarray) -> jax.Array:
    """A global array of what this process has of it."""
    # With several processes JAX takes what it is asked for here for an implicit transfer.
    with jax.transfer_guard_host_to_device("allow"):
        return jax.make_array_from_process_local_data(sharding, leaf)


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
