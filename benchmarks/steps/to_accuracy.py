"""Time to accuracy: `jaxres train` in a fresh process for each seed, by the wall clock.

The clock starts when the process is started and stops when the accuracy on the test split is
written, so importing, reading the data, compiling (the cache of compiled programs is off),
training, validation, checkpoints and testing all count.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from benchmarks.timing import rows
from jaxres.runtime.errors import InputError
from jaxres.runtime.screen import say

TRAIN = ("-m", "jaxres", "train")
CLOCK = "from the start of the process to the test accuracy, compiling and evaluating included"
COLUMNS = {
    "case": "case",
    "reached": "reached",
    "of": "repeats",
    "mean s": "to_accuracy_s.mean",
    "std": "to_accuracy_s.std",
    "min": "to_accuracy_s.min",
    "max": "to_accuracy_s.max",
    "test accuracy": "test_accuracy.mean",
    "lowest": "test_accuracy.min",
    "compile s": "compile_s",
    "img/s": "images_per_s",
}


class Failed(Exception):  # noqa: N818
    """A training did not end well; the message says which and why."""


class Trained(NamedTuple):
    """One seed's run. Seconds are counted from the start of its process."""

    seed: int
    test_accuracy: float
    tested_s: float  # the test accuracy is written
    validation_reached_s: float | None  # the first validation accuracy that is enough, if any
    ended_s: float  # the process has ended
    compile_s: float
    images_per_s: float | None


def measured(recipe: Path, flags: Sequence[str], target: float, *, seeds: int) -> dict[str, Any]:
    """The row of all seeds.

    Raises:
        InputError: the recipe cannot be trained here.
        Failed: a training failed.
    """
    runs, config = [], {}
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            run_dir = Path(folder) / "run"
            runs.append(_train(recipe, flags, target, seed=seed, run_dir=run_dir))
            config = yaml.safe_load((run_dir / "config.yaml").read_text())
        say(
            f"seed {seed}: test accuracy {runs[-1].test_accuracy:.4f} "
            f"after {runs[-1].tested_s:.1f} s"
        )
    speeds = [run.images_per_s for run in runs if run.images_per_s is not None]
    return rows.row(
        "train",
        f"{recipe.stem} to {target:g} on the test split",
        recipe=str(recipe),
        model=config["model"]["name"],
        dtype=config["model"]["dtype"],
        batch_size=config["data"]["batch_size"],
        image_size=config["data"]["canvas"],
        warmup=0,
        repeats=seeds,
        compile_s=statistics.mean(run.compile_s for run in runs),
        images_per_s=statistics.median(speeds) if speeds else None,
        target=target,
        reached=sum(run.test_accuracy >= target for run in runs),
        clock=CLOCK,
        to_accuracy_s=_spread([run.tested_s for run in runs]),
        test_accuracy=_spread([run.test_accuracy for run in runs]),
        seeds=[run._asdict() for run in runs],
    )


def _train(
    recipe: Path, flags: Sequence[str], target: float, *, seed: int, run_dir: Path
) -> Trained:
    own = ["--output-dir", str(run_dir), f"--train.seed={seed}"]
    command = [sys.executable, *TRAIN, str(recipe), *flags, *own]
    env = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    began = time.time()
    ended = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    ended_s = time.time() - began
    if ended.returncode:
        last = (ended.stderr.splitlines() or ["no message"])[-1].removeprefix("error: ")
        if ended.returncode == 2:
            raise InputError(last)
        raise Failed(f"training with seed {seed} ended with status {ended.returncode}: {last}")
    logged = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((run_dir / "summary.json").read_text())
    enough = (
        row["unix_time_s"] - began
        for row in logged
        if row["split"] == "validation" and row["accuracy"] >= target
    )
    tested = next(row for row in logged if row["split"] == "test")
    return Trained(
        seed=seed,
        test_accuracy=tested["accuracy"],
        tested_s=tested["unix_time_s"] - began,
        validation_reached_s=next(enough, None),
        ended_s=ended_s,
        compile_s=summary["compile_s"],
        images_per_s=summary["images_per_s"],
    )


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    return {
        "mean": statistics.mean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "min": min(values),
        "max": max(values),
    }
