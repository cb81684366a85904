"""Training end to end: its speed beside that of the step alone, or its time to an accuracy.

Without --to-accuracy, two variants of the recipe's training run in turn, window by window:
`end to end` is the loop's own work (pipeline, feed, rendering, step, metrics fetched every
train.log_every_steps) without evaluation and checkpoints; `step only` is the same step on one
batch of images that stays on the devices. With --to-accuracy the recipe is trained by
`jaxres train`, from a fresh process for each seed.
"""

import argparse
import dataclasses
import itertools
import statistics
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
from jax.sharding import Mesh

from benchmarks.input import MIN_PAIRS, seconds
from benchmarks.steps import to_accuracy
from benchmarks.timing import measure, rows, streams
from benchmarks.timing.synthetic import Training, begin
from jaxres.config import Config
from jaxres.config import recipe as recipes
from jaxres.config.recipe import split_settings
from jaxres.data.composed import ComposedDataset, open_split
from jaxres.data.feed import Feed
from jaxres.data.pipeline import train_batches
from jaxres.distributed import strategy
from jaxres.distributed.mesh import check_batch, make_mesh
from jaxres.evaluation.evaluator import resident_of
from jaxres.logs.window import Window
from jaxres.runtime.errors import InputError
from jaxres.runtime.memory import keep_freed_memory
from jaxres.runtime.screen import quiet_libraries, say

COLUMNS = {
    "case": "case",
    "batch": "batch_size",
    "img/s": "images_per_s",
    "step ms": "step_ms.p50",
    "compile s": "compile_s",
    "data wait": "data_wait_share",
    "of step only": "ratio.median",
    "min": "ratio.min",
    "max": "ratio.max",
}


class EndToEnd:
    """The loop of `jaxres train` without evaluation and checkpoints."""

    def __init__(self, config: Config, dataset: ComposedDataset, mesh: Mesh):
        """Build everything and run the first call, which compiles."""
        self.steps_per_call = config.train.steps_per_call
        self._log_every_steps = config.train.log_every_steps
        self._step = 0
        parallel = strategy.create(config.train, mesh)
        self._batches = train_batches(dataset, streams.endless(config, dataset))
        lengths = itertools.repeat(self.steps_per_call)
        self._feed = Feed(self._batches, lengths, parallel.put_batch, depth=config.data.prefetch)
        self._window = Window(self._feed, parallel, config.data.batch_size)
        self._resident = parallel.put_resident(resident_of(dataset))
        self._state, self._call = begin(
            config,
            parallel,
            classes=len(dataset.class_names),
            total_steps=config.train.epochs * self._batches.steps_per_epoch,
        )
        self.restart()
        self.compile_s = measure.seconds_of(partial(self.run, self.steps_per_call))

    def restart(self) -> None:
        """Forget the seconds and the waiting so far."""
        self._seconds = self._wait_s = 0.0

    def run(self, steps: int) -> None:
        """That many steps, up to the last one's metrics on the host."""
        self._window.restart()
        with jax.transfer_guard("disallow"):
            for _ in range(steps // self.steps_per_call):
                batch, taken = next(self._feed)
                self._state, metrics = self._call(self._state, self._resident, batch)
                self._window.add(metrics, steps=taken)
                logged = self._step // self._log_every_steps
                self._step += taken
                if self._step // self._log_every_steps > logged:
                    self._fetch()
            self._fetch()

    def data_wait_share(self) -> float:
        """The share of the time since `restart` in which the devices waited for the feed."""
        return self._wait_s / self._seconds

    def close(self) -> None:
        """End the pipeline's worker processes."""
        self._batches.close()

    def _fetch(self) -> None:
        if numbers := self._window.close():
            self._seconds += numbers["seconds"]
            self._wait_s += numbers["wait_s"]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the rows; 2 for a wrong command line, recipe or dataset."""
    own, flags = split_settings(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(own)
    quiet_libraries()
    keep_freed_memory()  # as the loop does
    try:
        config = recipes.load(args.recipe, flags, prog="python -m benchmarks.train")
        if args.to_accuracy is not None:
            made = [to_accuracy.measured(args.recipe, flags, args.to_accuracy, seeds=args.seeds)]
            title, columns = "time to accuracy", to_accuracy.COLUMNS
        else:
            made = measured(config, args)
            title, columns = "training end to end", COLUMNS
    except InputError as error:
        say(f"error: {error}")
        return 2
    except to_accuracy.Failed as failure:
        say(f"error: {failure}")
        return 1
    rows.write(made, args.json)
    rows.show(title, made, columns)
    return 0


def measured(config: Config, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of `end to end` and `step only`."""
    mesh = make_mesh(config.train.devices)
    unit = mesh.size * config.optim.accumulate_steps
    check_batch(config.data.batch_size, mesh.size, config.optim.accumulate_steps)
    dataset = open_split(config, "train")

    def compare(batch_size: int) -> list[dict[str, Any]]:
        data = dataclasses.replace(config.data, batch_size=batch_size)
        return compared(dataclasses.replace(config, data=data), dataset, mesh, args)

    asked = config.data.batch_size
    made, batch_size = measure.with_smaller_batch(compare, asked, unit=unit)
    if batch_size == asked:
        return made
    return [row | {"batch_size_asked": asked} for row in made]


def compared(
    config: Config, dataset: ComposedDataset, mesh: Mesh, args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Both variants built, warmed up and timed in turn at one batch size."""
    whole = EndToEnd(config, dataset, mesh)
    try:
        classes = len(dataset.class_names)
        alone = Training(config, classes=classes, devices=mesh.size)
        steps = args.steps or _steps_of(whole, args.seconds / args.repeats)
        steps = -(-steps // whole.steps_per_call) * whole.steps_per_call
        say(f"{args.repeats} pairs of windows of {steps} steps")
        alone.run(steps)
        whole.run(steps)
        whole.restart()
        timed = measure.interleave(
            {"end to end": partial(whole.run, steps), "step only": partial(alone.run, steps)},
            warmup=0,
            repeats=args.repeats,
        )
        wait_share = whole.data_wait_share()
    finally:
        whole.close()

    images_per_window = steps * config.data.batch_size
    rates = {name: images_per_window / statistics.median(each) for name, each in timed.items()}
    common = {
        "recipe": str(args.recipe),
        "data": streams.describe(config, dataset),
        "render": config.data.render,
        "model": config.model.name,
        "dtype": config.model.dtype,
        "batch_size": config.data.batch_size,
        "image_size": config.data.image_size,
        "steps_per_call": whole.steps_per_call,
        "steps_per_window": steps,
        "warmup": 1,
        "repeats": args.repeats,
    }

    def row(name: str, **more: Any) -> dict[str, Any]:
        return rows.row(
            "train",
            f"{args.recipe.stem}, {name}",
            **common,
            step_ms=measure.percentiles_ms([each / steps for each in timed[name]]),
            images_per_s=rates[name],
            images_per_s_per_device=rates[name] / mesh.size,
            **more,
        )

    return [
        row(
            "end to end",
            compile_s=whole.compile_s,
            data_wait_share=wait_share,
            peer=rows.peer("step only", None, rates["step only"]),
            ratio=measure.ratio(timed["end to end"], timed["step only"]),
        ),
        row("step only", compile_s=alone.compile_s),
    ]


def _steps_of(whole: EndToEnd, window_s: float) -> int:
    """How many steps last about `window_s`."""
    steps, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < min(2.0, window_s):
        whole.run(whole.steps_per_call)
        steps += whole.steps_per_call
    return max(1, round(steps * window_s / passed))


def _parser() -> argparse.ArgumentParser:
    parser = rows.parser("train", __doc__)
    parser.epilog = "The recipe's keys can be overridden: --data.render host"
    add = parser.add_argument
    add("recipe", type=rows.local_path, metavar="RECIPE", help="YAML file of settings")
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--seconds", type=seconds, default=60.0, help="of each variant in all (default: 60)"
    )
    length.add_argument("--steps", type=_whole(1), metavar="N", help="in a window, instead")
    add("--repeats", type=_whole(MIN_PAIRS), default=MIN_PAIRS, help="pairs of windows (7 or more)")
    add("--to-accuracy", type=_accuracy, metavar="SHARE", help="on the test split, as 0.99")
    add("--seeds", type=_whole(1), default=5, metavar="N", help="with --to-accuracy: 0 to N - 1")
    return parser


def _whole(least: int) -> Any:
    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"'{text}'; allowed: whole numbers from {least}")
        return int(text)

    return parse


def _accuracy(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}'; allowed: a share above 0, up to 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
