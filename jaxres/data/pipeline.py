"""From settings to batches: the splits of a run, and the Grain pipeline that plans them.

A Grain element is a whole batch: element by element Grain costs more than the rendering itself.
"""

import ctypes
import dataclasses
import gc
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import cv2
import grain
import numpy as np
from jaxtyping import Int32, UInt8

from jaxres.config import Config, DataConfig, Split
from jaxres.data import backgrounds, render_host, sources
from jaxres.data.paths import data_dir
from jaxres.data.plan import Composition, Plain, ScaleBlend, epoch_order
from jaxres.data.sources import Source
from jaxres.errors import InputError

Batch = dict[str, Any]
MAX_STEPS = 2**31 - 1  # the step is counted in int32 on the devices


@dataclasses.dataclass(frozen=True)
class Pictures:
    """One split, ready to be planned and rendered."""

    split: Split
    source: Source
    photos: np.ndarray  # uint8, "photos s s 3"; none for a composition without backgrounds
    compose: Composition
    render: Literal["device", "host"]
    seed: int

    def __len__(self) -> int:
        """Number of pictures in an epoch."""
        return len(self.source.labels)

    def batch(self, examples: Int32[np.ndarray, " n"], *, epoch: int, first: int) -> Batch:
        """The batch that shows `examples` at positions first, first + 1, ... of an epoch.

        Holds `label` (int32, n) and either `plan` (fields of n) or `image` (uint8, n h w 3).
        """
        plan = self.compose.draw(
            examples, seed=self.seed, stream=self.split, epoch=epoch, first=first
        )
        labels = self.source.labels[examples]
        if self.render == "device":
            return {"plan": plan, "label": labels}
        images = render_host.render(
            plan, self.source.images, self.photos, canvas=self.compose.canvas
        )
        return {"image": images, "label": labels}


def open_split(config: Config, split: Split) -> Pictures:
    """Load the data set and the background bank of a split into memory.

    Raises:
        InputError: a data set is unknown, not prepared or damaged, has no such pictures, or does
            not suit the composition.
    """
    data = config.data
    folder: Path = data_dir(data.data_dir)
    source = sources.load(
        data.dataset,
        split,
        data_dir=folder,
        validation_examples=data.validation_examples,
        split_seed=data.split_seed,
        canvas=data.canvas,
    )
    limit = (
        config.train.limit_train_examples if split == "train" else config.train.limit_eval_examples
    )
    if data.composition == "plain":
        compose, photos = Plain(data.canvas), np.empty((0, data.canvas, data.canvas, 3), np.uint8)
    elif source.grey:
        photos = backgrounds.load(
            data.backgrounds, split, data_dir=folder, canvas=data.canvas, photo_side=data.photo_side
        )
        compose = _scale_blend(data, photos)
    else:
        raise InputError(
            f"data.composition is {data.composition}, which lays grey digits over photographs, but "
            f"the pictures of data.dataset {data.dataset} have colours; allowed for them: plain"
        )
    return Pictures(
        split=split,
        source=source.first(limit),
        photos=photos,
        compose=compose,
        render=data.render,
        seed=config.train.seed,
    )


def _scale_blend(data: DataConfig, photos: UInt8[np.ndarray, "photos s s 3"]) -> ScaleBlend:
    sides = data.digit_side
    if data.digit_side_range is not None:
        low, high = data.digit_side_range
        sides = tuple(range(low, high + 1))
    return ScaleBlend(
        canvas=data.canvas,
        sides=sides,
        placement=data.placement,
        opacity=data.opacity,
        photos=photos.shape[0],
        photo_side=photos.shape[1],
    )


@dataclasses.dataclass(frozen=True)
class TrainBatch:
    """Grain's map function: the number of a step to this process's part of its batch."""

    pictures: Pictures
    batch_size: int  # of all processes together
    process: int = 0
    processes: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch; what is left over is not used."""
        return len(self.pictures) // self.batch_size

    def __call__(self, step: int) -> Batch:
        """The batch of a step, counted from the start of training."""
        epoch, step = divmod(int(step), self.steps_per_epoch)
        share = self.batch_size // self.processes
        first = step * self.batch_size + self.process * share
        order = epoch_order(len(self.pictures), seed=self.pictures.seed, epoch=epoch)
        examples = order[first : first + share].astype(np.int32)
        return self.pictures.batch(examples, epoch=epoch, first=first)


class TrainBatches:
    """Iterator over the batches of a training run, with a state that can be saved.

    The state is the number of the next step, so a state saved under one number of processes,
    threads or workers continues under any other with the exact next plan.
    """

    def __init__(self, make: TrainBatch, *, total_steps: int, workers: int = 0):
        """Start at step 0 of `total_steps`; `workers` processes render (0: one thread)."""
        self._make = make
        self._total_steps = total_steps
        self._workers = workers
        self.steps_per_epoch = make.steps_per_epoch
        self.set_state({"next_step": 0})

    def __iter__(self) -> "TrainBatches":
        """Itself."""
        return self

    def __next__(self) -> Batch:
        """The batch of the next step."""
        batch = next(self._batches)
        self._next_step += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """What `set_state` takes to continue after the batch last returned."""
        return self.state_after(self._next_step)

    @staticmethod
    def state_after(steps: int) -> dict[str, int]:
        """The state after the first `steps` batches, whatever has been read ahead."""
        return {"next_step": steps}

    def close(self) -> None:
        """End the worker processes; there are no batches after this."""
        self._batches.close()
        self._batches = iter(())  # what Grain's iterator still holds in shared memory goes with it
        gc.collect()

    def set_state(self, state: dict[str, int]) -> None:
        """Continue from a state of `get_state`."""
        self._next_step = state["next_step"]
        # Plans are cheaper than a hand-over between threads; pictures are not.
        threads = 0 if self._make.pictures.render == "device" else 1
        dataset = (
            grain.MapDataset.range(self._next_step, self._total_steps)
            .map(self._make)
            .to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4))
        )
        if self._workers:
            _mark_flags_parsed()
            dataset = dataset.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=self._workers),
                worker_init_fn=_init_worker,
            )
        self._batches: Any = iter(dataset)


def train_batches(
    pictures: Pictures,
    config: Config,
    *,
    process: int = 0,
    processes: int = 1,
) -> TrainBatches:
    """The training batches of a run.

    Raises:
        InputError: the split holds less than one batch.
    """
    make = TrainBatch(pictures, config.data.batch_size, process, processes)
    if make.steps_per_epoch == 0:
        raise InputError(
            f"data.batch_size is {config.data.batch_size} but '{config.data.dataset}' has "
            f"{len(pictures)} training examples; allowed: 1 to {len(pictures)}"
        )
    most = MAX_STEPS // make.steps_per_epoch
    if config.train.epochs > most:
        raise InputError(f"train.epochs is {config.train.epochs}; allowed here: 1 to {most}")
    return TrainBatches(
        make,
        total_steps=config.train.epochs * make.steps_per_epoch,
        workers=config.data.workers,
    )


def eval_batches(pictures: Pictures, batch_size: int) -> Iterator[tuple[Batch, int]]:
    """Every picture of a split once, in order, with the number of real pictures in the batch.

    The last batch is filled up with copies of its last picture; its real pictures come first.
    """
    for first in range(0, len(pictures), batch_size):
        examples = np.arange(first, min(first + batch_size, len(pictures)), dtype=np.int32)
        padded = np.pad(examples, (0, batch_size - len(examples)), mode="edge")
        yield pictures.batch(padded, epoch=0, first=first), len(examples)


def _init_worker(index: int, count: int) -> None:
    del index, count
    cv2.setNumThreads(0)  # one process a core already
    if sys.platform == "linux":
        # A killed trainer takes its workers along (prctl's PR_SET_PDEATHSIG is 1).
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _mark_flags_parsed() -> None:
    """Grain's worker processes read absl flags, which only absl's own `app.run` parses."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
