"""Endless streams of batches: ours, the feed's, rendering alone and a peer's, with their rates."""

import collections
import contextlib
import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxres.config import Config
from jaxres.data.compose.scale_blend import ScaleBlend
from jaxres.data.composed import ComposedDataset
from jaxres.data.feed import Feed
from jaxres.data.inputs import images_of
from jaxres.data.pipeline import MAX_STEPS, train_batches
from jaxres.distributed import strategy
from jaxres.evaluation.evaluator import resident_of

LEAD_S = 0.2  # before each window: what was read ahead while the other one ran is used up

Take = Callable[[], int]  # takes a batch and says how many images it had


@contextlib.contextmanager
def ours(dataset: ComposedDataset, config: Config) -> Iterator[Take]:
    """The batches that training takes, without end."""
    dataset = _rendered_by(dataset, config.data.render)
    batches = train_batches(dataset, endless(config, dataset))
    try:
        yield lambda: len(next(batches)["label"])
    finally:
        batches.close()


@contextlib.contextmanager
def fed(dataset: ComposedDataset, config: Config, parallel: strategy.Parallel) -> Iterator[Take]:
    """Batches of plans once they are on the devices, by the loop's own feed."""
    dataset = _rendered_by(dataset, "device")
    batches = train_batches(dataset, endless(config, dataset))
    steps = itertools.repeat(config.train.steps_per_call)
    feed = Feed(batches, steps, parallel.put_batch, depth=config.data.prefetch)

    def take() -> int:
        batch, steps = next(feed)
        jax.block_until_ready(batch)
        return steps * config.data.batch_size

    try:
        yield take
    finally:
        batches.close()


def rendering(dataset: ComposedDataset, config: Config, mesh: Mesh, batch_size: int) -> Take:
    """Images rendered on one device from a batch of plans that is there already."""
    dataset = _rendered_by(dataset, "device")
    digits = np.arange(batch_size, dtype=np.int32) % len(dataset)
    batch = dataset.batch(digits, epoch=0, first=0)
    batch, resident = jax.device_put((batch, resident_of(dataset)), mesh.devices.flat[0])
    render = jax.jit(functools.partial(images_of, config))
    render(resident, batch).block_until_ready()
    ahead: collections.deque[jax.Array] = collections.deque()

    def take() -> int:
        ahead.append(render(resident, batch))
        if len(ahead) > 2:  # the device always has the next call, and never a heap of them
            ahead.popleft().block_until_ready()
        return batch_size

    return take


def take_theirs(batches: Iterator[Any]) -> int:
    """A batch of a peer, which gives images and labels."""
    images, labels = next(batches)
    assert len(images) == len(labels)
    return len(images)


def rates(takes: Mapping[str, Take], *, seconds: float, repeats: int) -> dict[str, list[float]]:
    """Images per second of each, window by window in turn (A B A B)."""
    rates: dict[str, list[float]] = {name: [] for name in takes}
    for _ in range(repeats):
        for name, take in takes.items():
            _rate(take, LEAD_S)
            rates[name].append(_rate(take, seconds))
    return rates


def _rate(take: Take, seconds: float) -> float:
    taken = 0
    began = time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        taken += take()
    return taken / passed


def _rendered_by(dataset: ComposedDataset, render: Any) -> ComposedDataset:
    return dataclasses.replace(
        dataset, data=dataclasses.replace(dataset.data, render=render, workers=0)
    )


def endless(config: Config, dataset: ComposedDataset) -> Config:
    """The settings with as many epochs as the pipeline can count."""
    steps_per_epoch = max(1, len(dataset) // config.data.batch_size)
    train = dataclasses.replace(config.train, epochs=MAX_STEPS // steps_per_epoch)
    return dataclasses.replace(config, train=train)


def describe(config: Config, dataset: ComposedDataset) -> str:
    """What the images are made of."""
    data, compose = config.data, dataset.compose
    over = ""
    if isinstance(compose, ScaleBlend):
        over = f" over {compose.photos} squares of {data.backgrounds} ({compose.photo_side} px)"
    return f"{len(dataset)} of {data.dataset}{over}, canvas {data.canvas} px"
