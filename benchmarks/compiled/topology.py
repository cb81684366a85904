"""A training step lowered for chips that are not there: shapes in place of arrays."""

import dataclasses
import importlib.metadata
import importlib.util
import math
import re
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks.hardware.chips import CHIPS, GPUS, Chip, target_config
from jaxres.checkpoint.shapes import abstract_like
from jaxres.config import Config
from jaxres.data.backgrounds import photographs
from jaxres.data.compose.composition import Resident
from jaxres.data.composed import Batch, open_split
from jaxres.data.datasets import registry
from jaxres.data.datasets.paths import data_dir
from jaxres.data.own import tfds_dataset
from jaxres.distributed import strategy
from jaxres.distributed.mesh import AXIS
from jaxres.evaluation.evaluator import resident_of
from jaxres.models.build import abstract_network
from jaxres.ops.target import target_backend
from jaxres.runtime.errors import InputError
from jaxres.training import optim, transfer
from jaxres.training.state import new_state
from jaxres.training.step import make_train_step

EXAMPLES = ("v5e:2x2", "v5p:2x2x1", "v6e:2x2", "h100", "h100:8", "h100:2x8")
TPUS = [name for name in CHIPS if name not in GPUS]
_TPU = re.compile(rf"({'|'.join(TPUS)}):(\d+(?:x\d+){{1,2}})")
_GPU = re.compile(rf"({'|'.join(GPUS)})(?::(?:(\d+)x)?(\d+))?")  # hosts x devices of each
GPU_PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")

IMAGENET_IMAGES, IMAGENET_CLASSES = 1_281_167, 1_000
IMAGENET_NAMES = ("imagenet", "imagenet2012")  # prepared from a folder, or by TFDS

# What is assumed where the datasets of a recipe are not prepared: MNIST without the validation
# examples over 400 squares of photographs or 256 textures, or CIFAR-10.
ASSUMED = {
    "scale_blend": Resident(
        images=np.broadcast_to(np.uint8(0), (50_000, 28, 28)),
        photos=np.broadcast_to(np.uint8(0), (400, 256, 256, 3)),
    ),
    "scatter_digits": Resident(
        images=np.broadcast_to(np.uint8(0), (50_000, 28, 28)),
        photos=np.broadcast_to(np.uint8(0), (256, 256, 256)),
        patch=44,
    ),
    "plain": Resident(
        images=np.broadcast_to(np.uint8(0), (50_000, 32, 32, 3)),
        photos=np.broadcast_to(np.uint8(0), (0, 32, 32, 3)),
    ),
}


class Topology(NamedTuple):
    """Chips joined in a shape, as the compiler knows them."""

    name: str
    chip: Chip
    mesh: Mesh
    backend: str = "tpu"  # or "gpu"

    @property
    def devices(self) -> int:
        """How many: one per chip."""
        return self.mesh.size

    @property
    def kind(self) -> str:
        """What JAX calls the chip."""
        return self.mesh.devices.flat[0].device_kind


class Workload(NamedTuple):
    """What a step of a recipe takes, but for the size of the batch."""

    example: Batch  # a batch of one
    resident: Resident | None
    examples: int  # in an epoch
    classes: int
    told: str


def is_gpu(name: str) -> bool:
    """Whether a topology's name is one of GPUs."""
    return _GPU.fullmatch(name) is not None


def describe(name: str) -> Topology:
    """The topology of a name such as v5e:2x2, h100 or h100:2x8.

    Raises:
        InputError: no topology is called so, its compiler is missing, or another process holds it.
    """
    if gpu := _GPU.fullmatch(name):
        return _describe_gpu(name, gpu[1], int(gpu[2] or 1), int(gpu[3] or 1))
    if tpu := _TPU.fullmatch(name):
        return _describe_tpu(name, tpu[1], [int(side) for side in tpu[2].split("x")])
    raise InputError(f"unknown topology '{name}'; {_allowed()}")


def _allowed() -> str:
    return (
        f"allowed: {', '.join(TPUS)} with a shape, {', '.join(GPUS)} with a number of devices or "
        f"hosts x devices, such as {', '.join(EXAMPLES)}"
    )


def _describe_gpu(name: str, chip: str, hosts: int, devices: int) -> Topology:
    if not any(map(importlib.util.find_spec, GPU_PLUGINS)):
        raise InputError(
            "JAX's CUDA plugin is not installed; it comes with pip install 'jaxres[gpu-aot]', "
            "in a checkout pip install -e '.[gpu-aot]'"
        )
    config = target_config(GPUS[chip], bytes_per_s=1e9 * CHIPS[chip].hbm_gbs)
    try:
        described = topologies.get_topology_desc(
            platform="cuda", target_config=config, topology=f"1x{hosts}x{devices}"
        )
    except Exception as error:
        said = " ".join(str(error).split())
        raise InputError(f"no topology '{name}' ({said}); {_allowed()}") from None
    return Topology(name, CHIPS[chip], _mesh(described.devices), "gpu")


def _describe_tpu(name: str, kind: str, sides: list[int]) -> Topology:
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(
            "libtpu is not installed; it comes with pip install 'jaxres[tpu]', "
            "in a checkout pip install -e '.[tpu]'"
        )
    chip = CHIPS[kind]
    options: dict[str, Any] = {} if chip.config is None else {"chip_config_name": chip.config}
    if math.prod(sides) < 4:  # less than the board of four that a host is taken to have
        options["chips_per_host_bounds"] = [*sides, 1][:3]
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=name, **options)
    except Exception as error:
        said = " ".join(str(error).split())
        if "lockfile" in said:
            raise InputError(
                "another process holds libtpu on this machine; wait until it ends, or set "
                f"ALLOW_MULTIPLE_LIBTPU_LOAD=1 ({said})"
            ) from None
        raise InputError(f"unknown topology '{name}' ({said}); {_allowed()}") from None
    return Topology(name, chip, _mesh(described.devices))


def _mesh(devices: Any) -> Mesh:
    axis_types = (AxisType.Auto,)
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=axis_types, devices=devices)


def compiler_version(name: str) -> dict[str, str | None]:
    """The compiler of a topology and its version; None where it is not installed as a package."""
    if not is_gpu(name):
        return {"libtpu": _version("libtpu")}
    plugin = next((each for each in GPU_PLUGINS if _version(each)), GPU_PLUGINS[0])
    return {plugin: _version(plugin)}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def workload(config: Config) -> Workload:
    """The sizes of a recipe's data: as prepared, or else assumed.

    Raises:
        InputError: the settings name no dataset, or the step cannot be compiled ahead of time.
    """
    if config.train.parallel != "jit":
        raise InputError(
            f"train.parallel is {config.train.parallel}; allowed here: jit (both run one step)"
        )
    folder = data_dir(config.data.data_dir)
    listed = [*registry.describe(folder), *photographs.describe(folder)]
    ready = {row.name: row.ready for row in listed}
    missing = [
        name
        for name in (config.data.dataset, config.data.backgrounds)
        if not ready.get(name, True)  # a name that is not listed at all is for open_split to refuse
    ]
    known = config
    if missing:
        stand_in = dataclasses.replace(config.data, dataset="digits", backgrounds="black")
        known = dataclasses.replace(config, data=stand_in)
    if _is_missing_imagenet(config.data.dataset, folder):
        return _imagenet(config)
    dataset = open_split(known, "train")
    resident = resident_of(dataset)
    examples = len(dataset)
    if missing:
        assumed = ASSUMED[config.data.composition]
        examples = len(assumed.images)
        resident = assumed if resident is not None else None
    told = f"rendered on the {config.data.render}"
    if resident is not None:
        arrays = {"images": resident.images, "photos": resident.photos}.items()
        sizes = " and ".join(_size(array, name) for name, array in arrays if len(array))
        why = f" (assumed: {' and '.join(missing)} not prepared)" if missing else ""
        told += f" from {sizes}{why}"
    return Workload(
        example=dataset.batch(np.zeros(1, np.int32), epoch=0, first=0),
        resident=resident,
        examples=examples,
        classes=len(dataset.class_names),
        told=told,
    )


def _is_missing_imagenet(dataset: str, folder: Path) -> bool:
    name = re.split("[:/]", dataset.removeprefix(tfds_dataset.PREFIX))[0]
    return name in IMAGENET_NAMES and not (folder / name).is_dir()


def _imagenet(config: Config) -> Workload:
    """What is assumed where ImageNet is not prepared."""
    side = config.data.image_size
    return Workload(
        example={"image": np.zeros((1, side, side, 3), np.uint8), "label": np.zeros(1, np.int32)},
        resident=None,
        examples=min(IMAGENET_IMAGES, config.train.limit_train_examples or IMAGENET_IMAGES),
        classes=IMAGENET_CLASSES,
        told=f"rendered on the host (assumed: {IMAGENET_IMAGES:,} images of {IMAGENET_CLASSES:,} "
        f"classes; {config.data.dataset} not prepared)",
    )


def _size(array: np.ndarray, name: str) -> str:
    return f"{len(array):,} {name} of {array.shape[1]}x{array.shape[2]}"


def lower(config: Config, work: Workload, target: Topology, batch_size: int) -> jax.stages.Lowered:
    """The step of `jaxres train` for these devices, traced and ready to compile."""
    net = abstract_network(config, classes=work.classes)
    total_steps = config.train.epochs * max(1, work.examples // batch_size)
    _, trained, optimizer = transfer.first_phase(config, net, total_steps)
    rate = optim.learning_rate(config.optim, total_steps)
    ema = config.optim.ema_decay > 0
    begin = partial(new_state, optimizer=optimizer, ema=ema, trained=trained)
    state = jax.eval_shape(begin, net.params, net.stats)
    whole, cut = NamedSharding(target.mesh, P()), NamedSharding(target.mesh, P(AXIS))
    batch = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((batch_size, *leaf.shape[1:]), leaf.dtype, sharding=cut),
        work.example,
    )
    step = make_train_step(net, optimizer, rate, config, trained=trained)
    with target_backend(target.backend):
        call: Any = strategy.create(config.train, target.mesh).compile(step, 1)
        return call.lower(abstract_like(state, whole), abstract_like(work.resident, whole), batch)
