"""A torch module in the names and layouts of ours, computing in float64."""

from collections.abc import Callable

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]

from jaxres.weights import torchvision
from tests.models.cases import LABELS
from tests.models.drawn import Weights

# Threads that wait for cores make these small networks ten times slower.
torch.set_num_threads(1)


class ChannelsLast(nn.Module):
    """From NCHW to NHWC, the order in which ours flatten."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.permute(0, 2, 3, 1)


class TorchReference:
    """`theirs` gives the name in their state dict for a name of ours."""

    def __init__(self, module: nn.Module, theirs: Callable[[str], str]):
        self.module = module
        self.theirs = theirs
        for part in module.modules():
            if isinstance(part, nn.Dropout | nn.Dropout2d):
                part.p = 0.0

    def logits(self, weights: Weights, images: np.ndarray) -> np.ndarray:
        """In evaluation."""
        self._load(weights)
        with torch.no_grad():
            return self.module.eval()(_to_torch(images)).numpy()

    def gradients(self, weights: Weights, images: np.ndarray) -> Weights:
        """In training, of the mean cross-entropy."""
        self._load(weights)
        outputs = self.module.train()(_to_torch(images))
        nn.functional.cross_entropy(outputs, torch.from_numpy(LABELS).long()).backward()
        parameters = dict(self.module.named_parameters())
        found = {}
        for name in weights:
            if (parameter := parameters.get(self.theirs(name))) is not None:
                assert parameter.grad is not None
                found[name] = _ours(parameter.grad.numpy())
        return found

    def _load(self, weights: Weights) -> None:
        state = {
            name: torch.zeros((), dtype=torch.long)
            for name in self.module.state_dict()
            if name.endswith("num_batches_tracked")
        }
        for name, values in weights.items():
            state[self.theirs(name)] = torch.from_numpy(_theirs(values).astype(np.float64))
        self.module.load_state_dict(state, strict=True, assign=True)


def _to_torch(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.astype(np.float64)).permute(0, 3, 1, 2)


def _theirs(values: np.ndarray) -> np.ndarray:
    """Convolution kernels are (out, in, height, width), those of linear layers (out, in)."""
    return values.transpose(3, 2, 0, 1) if values.ndim == 4 else values.T


def _ours(values: np.ndarray) -> np.ndarray:
    return values.transpose(2, 3, 1, 0) if values.ndim == 4 else values.T


def published_name(model: str) -> Callable[[str], str]:
    """Names of torchvision's networks and of published CIFAR ResNets, as weights are imported."""
    layout = torchvision.layout(model)
    assert layout is not None
    return layout.theirs


def name_at(paths: Callable[[str], str]) -> Callable[[str], str]:
    """Names in a module that `paths` finds by the dotted path of a layer of ours."""

    def theirs(name: str) -> str:
        path, _, leaf = name.rpartition(".")
        return f"{paths(path)}.{torchvision.LEAVES[leaf]}"

    return theirs


def by_order(module: nn.Module) -> Callable[[str], str]:
    """Names in a row of layers, whose n-th convolution, batch norm or linear layer is our n-th."""
    named = list(module.named_modules())

    def names(*kinds: type[nn.Module]) -> list[str]:
        return [name for name, part in named if isinstance(part, kinds)]

    norms = names(nn.BatchNorm2d)
    conv = "convs.{}.conv" if norms else "convs.{}"
    *dense, last = names(nn.Linear)
    paths = {"head.linear": last}
    for ours, theirs in (
        (conv, names(nn.Conv2d)),
        ("convs.{}.norm", norms),
        ("head.dense.{}", dense),
        ("head.norms.{}", names(nn.BatchNorm1d)),
    ):
        paths |= {ours.format(place): name for place, name in enumerate(theirs)}
    return name_at(paths.__getitem__)
