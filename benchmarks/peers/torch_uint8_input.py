"""The input pipeline of a torch user who normalises on the accelerator: images stay bytes."""

from collections.abc import Iterator
from typing import Any

from benchmarks.peers import torch_input
from jaxres.data.composed import ComposedDataset

VERSION = torch_input.VERSION


def batches(dataset: ComposedDataset, batch_size: int, *, workers: int) -> Iterator[Any]:
    """Batches without end: (images uint8, labels), collated by the DataLoader."""
    return torch_input.batches(dataset, batch_size, workers=workers, as_bytes=True)
