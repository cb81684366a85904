"""Kill one run again and again, then compare its end with an undisturbed run's.

    python -m tests.faults.kills --kills 50 --seed 1 --json FILE

Status 1 if any bit differs, if anything is left over, or if the run ends before its last kill.
"""

import argparse
import json
import pathlib
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from jaxres.runtime.screen import quiet_libraries
from tests.conftest import TINY_FLAGS
from tests.faults.runs import LONGEST_S, Run, last_step, made_by, run, weights

FLAGS = [
    *TINY_FLAGS,
    "--checkpoint.every-steps=20",
    "--checkpoint.keep-last=3",
    "--train.log-every-steps=5",
    "--model.dropout=0.2",
    "--optim.name=adamw",
]
STEPS_A_KILL = 200  # of the run's length
TRAINING_S = 3.0  # a kill comes so long after the first new step at most, or while the run starts
STARTING = 1 / 4  # share of the kills while the run starts
LEFT_OVER = {"config.yaml", "metrics.jsonl", "summary.json", "tensorboard", "checkpoints", "lock"}


def main() -> int:
    """Print a line a kill and what they came to."""
    args = _parser().parse_args()
    quiet_libraries()
    seed = (
        args.seed if args.seed is not None else int(np.random.SeedSequence().generate_state(1)[0])
    )
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        report = disturb(pathlib.Path(folder), kills=args.kills, seed=seed)
    if args.json:
        args.json.write_text(json.dumps(made_by() | report, indent=2) + "\n")
    print(json.dumps({key: value for key, value in report.items() if key != "killed"}, indent=2))
    whole = report["kills"] == args.kills and report["bit_equal"] and not report["left_over"]
    return 0 if whole else 1


def disturb(folder: pathlib.Path, *, kills: int, seed: int) -> dict[str, object]:
    """Train once undisturbed and once with so many kills at random moments."""
    flags = [*FLAGS, f"--train.epochs={max(2, STEPS_A_KILL * kills // 10)}"]
    began = time.monotonic()
    with run(folder / "straight", flags) as straight:
        straight.wait_for_step(1)
        start_s = time.monotonic() - began
        straight.finish(LONGEST_S)
    undisturbed_s = time.monotonic() - began
    draw = np.random.default_rng(seed)
    killed: list[dict[str, Any]] = []
    step = 0
    began = time.monotonic()
    while len(killed) < kills:
        with run(folder / "killed", flags) as disturbed:
            alive_s = 0.0
            limit_s = draw.uniform(0.0, TRAINING_S)
            if draw.random() < STARTING:
                limit_s = draw.uniform(0.0, start_s)
            else:
                alive_s = _until(disturbed, partial(disturbed.reached, step + 1))
            alive_s += _until(disturbed, partial(_is_past, time.monotonic() + limit_s))
            if disturbed.processes[0].poll() is not None:
                disturbed.finish()  # it came to its end before
                break
            disturbed.send(signal.SIGKILL)
            disturbed.processes[0].wait()
        step = last_step(folder / "killed")
        begun = (folder / "killed" / "checkpoints").glob("*.orbax-checkpoint-tmp*")
        killed.append({"after_s": round(alive_s, 2), "step": step, "writing": any(begun)})
        print(len(killed), killed[-1], flush=True)
    with run(folder / "killed", flags) as rest:
        rest.finish(LONGEST_S)
    disturbed_s = time.monotonic() - began
    pairs = zip(weights(folder / "straight"), weights(folder / "killed"), strict=True)
    checkpoints = [path.name for path in (folder / "killed" / "checkpoints").iterdir()]
    others = {path.name for path in (folder / "killed").iterdir()} - LEFT_OVER
    return {
        "kills": len(killed),
        "seed": seed,
        "bit_equal": all(bool((left == right).all()) for left, right in pairs),
        "left_over": sorted(others | {name for name in checkpoints if not name.isdecimal()}),
        "undisturbed_s": round(undisturbed_s, 1),
        "disturbed_s": round(disturbed_s, 1),
        "start_s": round(start_s, 1),
        "lost_s_per_kill": round((disturbed_s - undisturbed_s) / len(killed), 2),
        "alive_s_median": statistics.median(each["after_s"] for each in killed),
        "killed_while_a_checkpoint_was_written": sum(each["writing"] for each in killed),
        "killed": killed,
    }


def _is_past(moment: float) -> bool:
    return time.monotonic() >= moment


def _until(run: Run, holds: Callable[[], bool]) -> float:
    """Wait for something, or for the run's end; how long that was."""
    began = time.monotonic()
    while run.processes[0].poll() is None and not holds():
        time.sleep(0.01)
    return time.monotonic() - began


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, help="default: drawn, and printed")
    parser.add_argument("--json", type=pathlib.Path, help="file for the report")
    return parser


if __name__ == "__main__":
    sys.exit(main())
