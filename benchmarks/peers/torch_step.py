"""The peers `torch` and `torch_compiled`: channels last, SGD, bfloat16 by autocast."""

import contextlib
import importlib.util
import os
import time
from collections.abc import Callable
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]

from benchmarks.peers import Peer, torch_cnn, torch_resnet, vision
from benchmarks.peers.resnets import RESNETS
from benchmarks.timing.workload import LEARNING_RATE, MEAN, MOMENTUM, STD, Workload
from jaxres.models.families import cnn


def eager(work: Workload, platform: str) -> Peer:
    """Every operation dispatched on its own."""
    run, settings = _prepare(work, platform, compile_mode=None)
    return Peer(run, torch.__version__, settings)


def compiled(work: Workload, platform: str) -> Peer:
    """The network with normalisation and loss through `torch.compile`.

    `compile_s` is the time of the first step.
    """
    mode = "max-autotune" if platform == "gpu" else "default"
    run, settings = _prepare(work, platform, compile_mode=mode)
    began = time.perf_counter()
    run(1)
    return Peer(run, torch.__version__, settings, time.perf_counter() - began)


def network(model: str, image_size: int, classes: int) -> tuple[torch.nn.Module, str]:
    """torchvision's model where it is installed, else our writing of it; and which it is."""
    if model in cnn.MODELS:
        return torch_cnn.network(model, image_size, classes), "benchmarks.peers.torch_cnn"
    if importlib.util.find_spec("torchvision") is None:
        return torch_resnet.resnet(RESNETS[model], classes), "benchmarks.peers.torch_resnet"
    torchvision = vision.load()
    made = torchvision.models.get_model(model, num_classes=classes)
    return made, f"torchvision {torchvision.__version__}"


def _prepare(
    work: Workload, platform: str, *, compile_mode: str | None
) -> tuple[Callable[[int], None], dict[str, Any]]:
    device = _device(platform)
    model, source = network(work.model, work.image_size, work.classes)
    model = model.to(device, memory_format=torch.channels_last).train()
    # NHWC bytes seen as NCHW are channels last already.
    images = torch.from_numpy(work.images).to(device).permute(0, 3, 1, 2)
    labels = torch.from_numpy(work.labels).to(device).long()
    scale = torch.tensor([1 / (255 * std) for std in STD], device=device)[:, None, None]
    shift = torch.tensor([-mean / std for mean, std in zip(MEAN, STD, strict=True)], device=device)[
        :, None, None
    ]
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, fused=True)

    def cast() -> contextlib.AbstractContextManager:
        if work.dtype == "bfloat16":
            return torch.autocast(device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def loss_of(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with cast():
            logits = model(images.float() * scale + shift)
        return functional.cross_entropy(logits.float(), labels)

    if compile_mode is not None:
        loss_of = torch.compile(loss_of, mode=compile_mode)

    def run(steps: int) -> None:
        for _ in range(steps):
            torch.compiler.cudagraph_mark_step_begin()
            optimizer.zero_grad(set_to_none=True)
            loss_of(images, labels).backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    settings = {
        "model": source,
        "compile": compile_mode,
        "memory_format": "channels_last",
        "optimizer": "SGD fused",
        "autocast": work.dtype if work.dtype == "bfloat16" else None,
        "threads": torch.get_num_threads(),
        "cudnn_benchmark": device.type == "cuda",
        "tf32": device.type == "cuda",
    }
    return run, settings


def _device(platform: str) -> torch.device:
    """torch's device of the same kind as JAX's, with its fastest settings."""
    torch.manual_seed(0)
    if platform == "cpu":
        torch.set_num_threads(_cores())
        return torch.device("cpu")
    if platform != "gpu" or not torch.cuda.is_available():
        raise RuntimeError(f"this torch ({torch.__version__}) has no {platform}, which JAX uses")
    torch.backends.cudnn.benchmark = True
    # As JAX does by default: float32 products and convolutions in TF32.
    torch.set_float32_matmul_precision("high")
    return torch.device("cuda")


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
