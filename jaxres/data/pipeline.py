"""The Grain pipeline: which images make each batch of a run, planned or rendered ahead.

A Grain element is a whole batch: element by element Grain costs more than the rendering itself.
"""

import contextlib
import ctypes
import dataclasses
import errno
import gc
import math
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import cv2
import grain
import jax
import numpy as np
from grain.multiprocessing import SharedMemoryArray

from jaxres.config import Config
from jaxres.data.composed import Batch, ComposedDataset
from jaxres.data.rng import epoch_order
from jaxres.runtime.deadlines import deadline
from jaxres.runtime.errors import InputError, TrainingFailed
from jaxres.runtime.screen import say

SHARED_MEMORY = "/dev/shm"
BATCHES_OF_A_WORKER = 3  # made, waiting and being read
STARTS = 3  # of the workers for one batch
WORKERS_S = 300  # within which they give one
WORKER_DIED = "terminated unexpectedly"  # in Grain's words
MAX_STEPS = 2**31 - 1  # the step is counted in int32 on the devices


@dataclasses.dataclass(frozen=True)
class _BatchOf:
    """This process's part of the batches of a split."""

    dataset: ComposedDataset
    batch_size: int  # of all processes together
    process: int = 0
    processes: int = 1

    @property
    def share(self) -> int:
        """How many images of a batch are this process's."""
        return self.batch_size // self.processes


@dataclasses.dataclass(frozen=True)
class TrainBatch(_BatchOf):
    """Grain's map function: the number of a step to this process's part of its batch."""

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch; what is left over is not used."""
        return len(self.dataset) // self.batch_size

    def __call__(self, step: int) -> Batch:
        """The batch of a step, counted from the start of training."""
        epoch, step = divmod(int(step), self.steps_per_epoch)
        first = step * self.batch_size + self.process * self.share
        order = epoch_order(len(self.dataset), seed=self.dataset.seed, epoch=epoch)
        examples = order[first : first + self.share].astype(np.int32)
        return self.dataset.in_epoch(epoch).batch(examples, epoch=epoch, first=first)


@dataclasses.dataclass(frozen=True)
class EvalBatch(_BatchOf):
    """Grain's map function: a number to this process's part of a batch of a split in order.

    The last batch is filled up with copies of its last image; its real images come first.
    """

    @property
    def count(self) -> int:
        """How many show every image once."""
        return math.ceil(len(self.dataset) / self.batch_size)

    def __call__(self, number: int) -> tuple[Batch, int]:
        """The batch, and the number of real images in the whole one."""
        first = int(number) * self.batch_size
        end = min(first + self.batch_size, len(self.dataset))
        examples = np.arange(first, end, dtype=np.int32)
        padded = np.pad(examples, (0, self.batch_size - len(examples)), mode="edge")
        begin = self.process * self.share
        ours = padded[begin : begin + self.share]
        return self.dataset.batch(ours, epoch=0, first=first + begin), len(examples)


class Batches:
    """Iterator over what a map function makes of the numbers below `count`, ahead of its reader.

    Its state is the number of the next, so a state saved under one number of processes, threads or
    workers continues under any other with the exact next plan.
    """

    def __init__(self, make: TrainBatch | EvalBatch, *, count: int, workers: int = 0):
        """Start at 0; `workers` processes render (0: one thread).

        Raises:
            InputError: there is not shared memory enough for the workers' images.
        """
        self._make = make
        self._count = count
        self._workers = workers
        if workers:
            _require_shared_memory(make, workers)
        self._set_next(0)

    def __iter__(self) -> Iterator[Any]:
        """Itself."""
        return self

    def __next__(self) -> Any:
        """The next; workers that die are started again, a few times.

        Raises:
            TrainingFailed: they die again and again.
        """
        made = _held(self._supervised()) if self._workers else next(self._batches)
        self._next += 1
        return made

    def _supervised(self) -> Any:
        """The next from worker processes."""
        number = self._next
        stalled = f"the data workers have given no batch for {WORKERS_S} s (batch {number})"
        for _ in range(STARTS):
            try:
                # Killed while it starts, a worker leaves Python waiting for it for ever.
                with deadline(WORKERS_S, stalled, status=1):
                    return next(self._batches)
            except (RuntimeError, OSError) as error:
                if os.strerror(errno.ENOSPC) in str(error):
                    raise TrainingFailed(
                        f"no shared memory is left; {_remedy(self._workers)}"
                    ) from error
                if WORKER_DIED not in str(error):
                    raise
            say(f"warning: a data worker died at batch {number}; starting the workers again")
            self._batches.close()
            self._set_next(number)
        raise TrainingFailed(
            f"a data worker died {STARTS} times at batch {number}; if memory or {SHARED_MEMORY} is "
            "short, data.workers may be too many"
        )

    def close(self) -> None:
        """End the worker processes; there are no batches after this. Twice is as good as once."""
        if hasattr(self._batches, "close"):
            self._batches.close()
        self._batches = iter(())
        if self._workers:  # what Grain's iterator still holds in shared memory goes with it
            gc.collect()

    def _set_next(self, number: int) -> None:
        self._next = number
        # Plans are cheaper than a hand-over between threads; images are not.
        threads = 0 if self._make.dataset.data.render == "device" else 1
        dataset = (
            grain.MapDataset.range(number, self._count)
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


class TrainBatches(Batches):
    """Iterator over the batches of a training run, with a state that can be saved."""

    def __init__(self, make: TrainBatch, *, total_steps: int, workers: int = 0):
        """Start at step 0 of `total_steps`; `workers` processes render (0: one thread)."""
        super().__init__(make, count=total_steps, workers=workers)
        self.steps_per_epoch = make.steps_per_epoch

    def get_state(self) -> dict[str, int]:
        """What `set_state` takes to continue after the batch last returned."""
        return self.state_after(self._next)

    @staticmethod
    def state_after(steps: int) -> dict[str, int]:
        """The state after the first `steps` batches, whatever has been read ahead."""
        return {"next_step": steps}

    def set_state(self, state: dict[str, int]) -> None:
        """Continue from a state of `get_state`."""
        self._set_next(state["next_step"])


def train_batches(
    dataset: ComposedDataset,
    config: Config,
    *,
    process: int = 0,
    processes: int = 1,
) -> TrainBatches:
    """The training batches of a run.

    Raises:
        InputError: the split holds less than one batch.
    """
    make = TrainBatch(dataset, config.data.batch_size, process, processes)
    if make.steps_per_epoch == 0:
        raise InputError(
            f"data.batch_size is {config.data.batch_size} but '{config.data.dataset}' has "
            f"{len(dataset)} training examples; allowed: 1 to {len(dataset)}"
        )
    most = MAX_STEPS // make.steps_per_epoch
    if config.train.epochs > most:
        raise InputError(f"train.epochs is {config.train.epochs}; allowed here: 1 to {most}")
    return TrainBatches(
        make,
        total_steps=config.train.epochs * make.steps_per_epoch,
        workers=config.data.workers,
    )


@contextlib.contextmanager
def eval_batches(
    dataset: ComposedDataset, batch_size: int, *, process: int = 0, processes: int = 1
) -> Iterator[Iterator[tuple[Batch, int]]]:
    """This process's part of each batch, with the number of real images in the whole one.

    Together they show every image of a split once, in order. They are made ahead as training's
    are: by `data.workers` processes, if there are more batches than those, which end with the
    block.
    """
    make = EvalBatch(dataset, batch_size, process, processes)
    workers = dataset.data.workers if make.count > dataset.data.workers else 0
    with contextlib.closing(Batches(make, count=make.count, workers=workers)) as batches:
        yield batches


def _require_shared_memory(make: TrainBatch | EvalBatch, workers: int) -> None:
    """Refuse workers whose images, handed over in shared memory, do not fit there.

    Raises:
        InputError: with what is needed and what there is.
    """
    side = make.dataset.data.image_size
    needed = workers * BATCHES_OF_A_WORKER * make.share * side * side * 3
    try:
        there = os.statvfs(SHARED_MEMORY)
    except OSError:
        return
    free = there.f_bavail * there.f_frsize
    if needed > free:
        raise InputError(
            f"data.workers is {workers}, whose images may need {needed >> 20:,} MiB of shared "
            f"memory; {SHARED_MEMORY} has {free >> 20:,} free: {_remedy(workers)}"
        )


def _remedy(workers: int) -> str:
    fewer = "fewer data.workers" if workers > 1 else "data.workers 0"
    return f"give it more (docker run --shm-size), or {fewer} or a smaller data.batch_size"


def _held(element: Any) -> Any:
    """What a worker handed over in shared memory, which is free when nobody has it any more.

    Grain gives it up when its array goes, and cannot while JAX still reads from there.
    """
    for leaf in jax.tree.leaves(element):
        if isinstance(leaf, SharedMemoryArray) and leaf.shm is not None:
            leaf.shm.unlink()
            leaf._unlink_on_del = False
    return element


def _init_worker(index: int, count: int) -> None:
    del index, count
    cv2.setNumThreads(0)  # one process a core already
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the trainer's, which ends them
    if sys.platform == "linux":
        # A killed trainer takes its workers along (prctl's PR_SET_PDEATHSIG is 1).
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _mark_flags_parsed() -> None:
    """Grain's worker processes read absl flags, which only absl's own `app.run` parses."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
