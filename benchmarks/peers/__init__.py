"""The systems our training step is compared with; each builds the same work its own best way."""

import gc
import importlib
import importlib.util
import itertools
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from benchmarks.peers.resnets import RESNETS
from benchmarks.peers.variants import VARIANTS
from benchmarks.timing.workload import Workload
from jaxres.models.families import cnn
from jaxres.models.registry import list_models
from jaxres.runtime.errors import InputError, unknown_name


class Peer(NamedTuple):
    """A peer ready to train: `run(steps)` trains and waits for the last step.

    `settings` says what was chosen for it, `compile_s` what it spent on compiling, None where it
    does not compile ahead of the first step.
    """

    run: Callable[[int], None]
    version: str
    settings: dict[str, Any]
    compile_s: float | None = None


class _Source(NamedTuple):
    """Where a peer is built: a module, its function, the package it needs and how to get it."""

    module: str
    function: str
    package: str
    install: str


TORCH_INSTALL = "pip install torch==2.13.0"
TORCHVISIONS = ("vgg*", "mobilenet_v2", "shufflenet_v2_*")  # beyond RESNETS, where it is installed
PEERS = {
    "torch": _Source("torch_step", "eager", "torch", TORCH_INSTALL),
    "torch_compiled": _Source("torch_step", "compiled", "torch", TORCH_INSTALL),
    "keras": _Source("keras_step", "build", "keras", "pip install '.[peers]'"),
    "flax": _Source("flax_step", "build", "flax", "pip install flax"),
}
NAMES = (*PEERS, *VARIANTS)


def check(names: Sequence[str], models: Sequence[str]) -> None:
    """Refuse peers that are unknown or not installed, and models that they do not have.

    Raises:
        InputError: naming what is allowed or what to install.
    """
    for name in names:
        if name in VARIANTS:  # ours, which has every model
            continue
        if name not in PEERS:
            raise unknown_name("peer", name, NAMES)
        source = PEERS[name]
        if importlib.util.find_spec(source.package) is None:
            raise InputError(
                f"peer '{name}' needs the package {source.package}, which is not installed: "
                f"{source.install}"
            )
        for model in models:
            known = _models_of(source)
            if model not in known and model in _models_of(source, torchvision=True):
                raise InputError(
                    f"peer '{name}' has {model} from torchvision, which is not installed: "
                    "pip install --no-deps torchvision"
                )
            if model not in known:
                raise unknown_name(f"model for peer {name}", model, known)


def _models_of(source: _Source, *, torchvision: bool | None = None) -> list[str]:
    """The networks that a peer has, where `torchvision` is installed or, by default, here."""
    if source.module != "torch_step":
        return list(RESNETS)
    if torchvision is None:
        torchvision = importlib.util.find_spec("torchvision") is not None
    families = TORCHVISIONS if torchvision else ()
    return [*RESNETS, *cnn.MODELS, *itertools.chain.from_iterable(map(list_models, families))]


def build(name: str, work: Workload, platform: str) -> Peer:
    """A peer with its weights and the batch on the first device of `platform` (cpu, gpu)."""
    if name in VARIANTS:
        return importlib.import_module(f"{__name__}.ours").build(name, work)
    source = PEERS[name]
    module = importlib.import_module(f"{__name__}.{source.module}")
    return getattr(module, source.function)(work, platform)


def release() -> None:
    """Give the memory of peers that nothing refers to any more back to the device."""
    gc.collect()
    if (torch := sys.modules.get("torch")) is not None:
        torch.compiler.reset()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
