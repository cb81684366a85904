"""What a checkpoint costs: how long the loop is blocked, how long it takes to write and to restore.

Saves the state of a real training to a new folder that is removed at the end. In every repeat, in
turn: steps alone; a save with steps going on until it is written; a save with nothing beside it;
a restore (of a file just written: from memory, where the system keeps files there).
"""

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks.timing import measure, rows
from benchmarks.timing.synthetic import Training
from benchmarks.timing.workload import Workload, settings
from jaxres.checkpoint.manager import Checkpoints
from jaxres.checkpoint.shapes import abstract_like
from jaxres.config import CheckpointConfig, Config, OptimConfig, to_dict
from jaxres.runtime.errors import InputError
from jaxres.runtime.memory import keep_freed_memory
from jaxres.runtime.screen import quiet_libraries, say

INTERVAL_S = 30.0  # between two saves, of which at most 5 % may be lost
MIN_STEPS = 3  # alone, however few go beside a save
PROGRESS = {"history": [], "best": None}

COLUMNS = {
    "case": "case",
    "state MiB": "state_mib",
    "blocked ms": "blocked_ms.p50",
    "of 30 s": "blocked_share",
    "written s": "written_s",
    "MB/s": "write_mb_per_s",
    "restore s": "restore_s",
    "step ms": "step_ms.p50",
    "steps' speed": "ratio.median",
    "min": "ratio.min",
    "max": "ratio.max",
    "lost of 30 s": "lost_share",
}


class Repeat(NamedTuple):
    """Seconds of one repeat: of a step alone, of each step beside a save, of two saves, ..."""

    step_s: float
    steps_beside_save_s: tuple[float, ...]
    blocked_s: tuple[float, float]
    written_with_steps_s: float
    written_s: float
    restore_s: float

    @property
    def speed_beside_save(self) -> float:
        """Of the steps while a checkpoint is written, against steps alone."""
        return self.step_s / statistics.mean(self.steps_beside_save_s)

    @property
    def lost_s(self) -> float:
        """What one save costs the loop: the wait and the slower steps."""
        slower_s = sum(self.steps_beside_save_s) - len(self.steps_beside_save_s) * self.step_s
        return statistics.mean(self.blocked_s) + slower_s


def main(words: Sequence[str] | None = None) -> int:
    """Status 0; 2 for what cannot be asked for."""
    args = _parser().parse_args(words)
    keep_freed_memory()  # as a training run does
    quiet_libraries()
    try:
        config = _settings(args)
        training = Training(config, classes=args.classes, devices=None)
    except InputError as error:
        say(f"error: {error}")
        return 2
    with tempfile.TemporaryDirectory(prefix="jaxres-checkpoint-", dir=args.dir) as folder:
        row = _measure(args, training, Path(folder))
    rows.write([row], args.json)
    rows.show(
        f"checkpoints of {args.model} with {args.optimizer}; steps of {args.batch_size} images "
        f"of {args.image_size} px",
        [row],
        COLUMNS,
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    made = rows.parser("checkpoint", __doc__)
    add = made.add_argument
    add("--model", default="resnet50")
    add("--optimizer", default="adamw", help="as in optim.name (default: adamw)")
    add("--image-size", type=rows.number, default=64, help="of the steps, in pixels")
    add("--batch-size", type=rows.number, default=32, help="of the steps")
    add("--classes", type=rows.number, default=1000)
    add("--repeats", type=rows.number, default=5)
    add(
        "--dir",
        type=rows.local_path,
        metavar="FOLDER",
        help="where to write (default: the temporary folder)",
    )
    return made


def _settings(args: argparse.Namespace) -> Config:
    """The settings of the training.

    Raises:
        InputError: too few repeats, no such folder, or a size that is not allowed.
    """
    if args.repeats < measure.MIN_REPEATS:
        raise InputError(f"--repeats is {args.repeats}; allowed: {measure.MIN_REPEATS} or more")
    if args.dir is not None and not args.dir.is_dir():
        raise InputError(f"--dir is '{args.dir}'; allowed: a folder that is there")
    work = Workload(args.model, args.image_size, args.batch_size, "float32", args.classes)
    return dataclasses.replace(settings(work), optim=OptimConfig(name=args.optimizer))


class Saver:
    """A training's checkpoints: each save is the next step of the run."""

    def __init__(self, training: Training, folder: Path):
        self.training = training
        self.folder = folder
        self.checkpoints = Checkpoints(folder, CheckpointConfig())
        self.config = to_dict(training.config)
        state = training.parallel.leave(training.state).to_dict()
        self.state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        self.abstract = abstract_like(state, NamedSharding(training.mesh, P()))
        self.step = 0

    def save(self) -> None:
        """What the loop does, and waits for, between two steps."""
        self.step += 1
        state = self.training.parallel.leave(self.training.state).to_dict()
        self.checkpoints.save(self.step, state, progress=PROGRESS, config=self.config)

    def restore(self) -> None:
        """The newest checkpoint, whole on every device, its checksums compared."""
        jax.block_until_ready(self.checkpoints.restore(self.step, self.abstract))

    def size_bytes(self) -> int:
        """The newest checkpoint's files."""
        newest = self.folder / str(self.step)
        return sum(file.stat().st_size for file in newest.rglob("*") if file.is_file())


def _measure(args: argparse.Namespace, training: Training, folder: Path) -> dict[str, Any]:
    saver = Saver(training, folder)
    try:
        training.run(2)
        saver.save()
        saver.checkpoints.wait()
        saver.restore()
        beside = MIN_STEPS
        repeats = []
        for number in range(args.repeats):
            say(f"[{number + 1}/{args.repeats}]")
            repeat, beside = _repeat(saver, max(MIN_STEPS, beside))
            repeats.append(repeat)
        return _row(args, saver, repeats)
    finally:
        saver.checkpoints.close()


def _repeat(saver: Saver, steps: int) -> tuple[Repeat, int]:
    """One of each; `steps` alone, and how many steps went beside the save, for the next repeat."""
    training, checkpoints = saver.training, saver.checkpoints
    alone_s = [measure.seconds_of(partial(training.run, 1)) for _ in range(steps)]
    began = time.perf_counter()
    saver.save()
    blocked_s = time.perf_counter() - began
    beside_s, written_with_steps_s = _steps_until_written(saver)
    blocked_alone_s = measure.seconds_of(saver.save)
    waited_s = measure.seconds_of(checkpoints.wait)
    repeat = Repeat(
        step_s=statistics.mean(alone_s),
        steps_beside_save_s=tuple(beside_s),
        blocked_s=(blocked_s, blocked_alone_s),
        written_with_steps_s=blocked_s + written_with_steps_s,
        written_s=blocked_alone_s + waited_s,
        restore_s=measure.seconds_of(saver.restore),
    )
    return repeat, len(beside_s)


def _steps_until_written(saver: Saver) -> tuple[list[float], float]:
    """Seconds of each step that began before the save was on disk, and until it was."""
    began = time.perf_counter()
    beside_s = []
    with ThreadPoolExecutor(1) as waiting:

        def wait() -> float:
            saver.checkpoints.wait()
            return time.perf_counter() - began

        written = waiting.submit(wait)
        while not beside_s or not written.done():
            beside_s.append(measure.seconds_of(partial(saver.training.run, 1)))
    return beside_s, written.result()


def _row(args: argparse.Namespace, saver: Saver, repeats: Sequence[Repeat]) -> dict[str, Any]:
    training, state_bytes = saver.training, saver.state_bytes
    blocked_s = [seconds for repeat in repeats for seconds in repeat.blocked_s]
    written_s = statistics.median(repeat.written_s for repeat in repeats)
    restore_s = statistics.median(repeat.restore_s for repeat in repeats)
    speeds = [repeat.speed_beside_save for repeat in repeats]
    step_s = [repeat.step_s for repeat in repeats]
    return rows.row(
        "checkpoint",
        f"{args.model} {args.optimizer}",
        dtype="float32",
        batch_size=args.batch_size,
        image_size=args.image_size,
        warmup=1,
        repeats=args.repeats,
        compile_s=training.compile_s,
        step_ms=measure.percentiles_ms(step_s),
        images_per_s=args.batch_size / statistics.median(step_s),
        ratio=measure.Spread(statistics.median(speeds), min(speeds), max(speeds), len(speeds)),
        state_mib=state_bytes / 2**20,
        size_mib=saver.size_bytes() / 2**20,
        blocked_ms=measure.percentiles_ms(blocked_s),
        blocked_share=statistics.median(blocked_s) / INTERVAL_S,
        written_s=written_s,
        write_mb_per_s=state_bytes / written_s / 1e6,
        written_with_steps_s=statistics.median(repeat.written_with_steps_s for repeat in repeats),
        restore_s=restore_s,
        restore_mb_per_s=state_bytes / restore_s / 1e6,
        steps_beside_save=[len(repeat.steps_beside_save_s) for repeat in repeats],
        lost_share=statistics.median(repeat.lost_s for repeat in repeats) / INTERVAL_S,
    )


if __name__ == "__main__":
    sys.exit(main())
