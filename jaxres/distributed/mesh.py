"""The mesh of devices along one axis, and arrays on it."""

import collections
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxres.runtime.errors import InputError

PyTree = Any
AXIS = "data"  # the name of the devices' axis in every step


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


def check_batch(batch_size: int, devices: int, microbatches: int) -> int:
    """How many examples of a global batch one device takes at a time, a microbatch.

    Raises:
        InputError: it does not divide; with the nearest sizes that do.
    """
    unit = devices * microbatches
    if batch_size % unit == 0:
        return batch_size // unit
    near = [size for size in (batch_size // unit * unit, -(-batch_size // unit) * unit) if size]
    times = f" x {microbatches} microbatches" if microbatches > 1 else ""
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
