"""Train for a long time with checkpoints, evaluations and kills, and watch what a process holds.

    python -m tests.faults.soak --minutes 30 --kills 2 --json FILE --plot FILE.png
    python -m tests.faults.soak --kills 0 --model.name=resnet18 --train.evaluate-every-epochs=5

Settings given come on top of those of the tests' network. Status 1 if memory, file handles or
threads grow beyond what processes held in the second quarter of their lives.
"""

import argparse
import itertools
import json
import pathlib
import signal
import sys
import tempfile
import time
from typing import Any

import numpy as np
import psutil

from tests.conftest import TINY_FLAGS
from tests.faults.runs import Run, made_by, run

FLAGS = [
    *TINY_FLAGS,
    "--data.render=host",
    "--data.workers=1",
    "--checkpoint.every-steps=25",
    "--train.epochs=1000000",
]
PERIOD_S = 2.0
# What the last quarters of all lives may hold at most beyond their second quarters, highest against
# highest: the allocator comes to the same level sooner in one life than in another.
MOST = {"memory_mib": 32.0, "files": 4.0, "threads": 2.0}


def main() -> int:
    """Print what each life came to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--plot", type=pathlib.Path)
    args, settings = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        lives = soak(pathlib.Path(folder) / "run", settings, minutes=args.minutes, kills=args.kills)
    report = [{**medians(life), "samples": len(life)} for life in lives]
    for number, each in enumerate(report, 1):
        print(f"life {number}: {json.dumps(each)}")
    gained = {key: _highest(report, key, 1) - _highest(report, key, 0) for key in MOST}
    flat = all(gained[key] <= most for key, most in MOST.items())
    print(f"gained: {json.dumps(gained)}, {'flat' if flat else 'NOT FLAT'}")
    if args.json:
        whole = {
            **made_by(),
            "settings": settings,
            "minutes": args.minutes,
            "kills": args.kills,
            "lives": report,
            "gained": gained,
        }
        args.json.write_text(json.dumps(whole, indent=2) + "\n")
    if args.plot:
        plot(lives, args.plot)
    return 0 if flat else 1


def soak(
    run_dir: pathlib.Path, settings: list[str], *, minutes: float, kills: int
) -> list[list[dict[str, float]]]:
    """What each process of a run held, every PERIOD_S; all but the last are killed."""
    lives = []
    began = time.monotonic()
    for _ in range(kills + 1):
        with run(run_dir, [*FLAGS, *settings]) as life:
            lives.append(_watch(life, minutes * 60 / (kills + 1), began))
            last = len(lives) == kills + 1
            life.send(signal.SIGTERM if last else signal.SIGKILL)
            assert life.wait() == [0 if last else -signal.SIGKILL], life.tails()
    return lives


def _watch(life: Run, seconds: float, began: float) -> list[dict[str, float]]:
    process = psutil.Process(life.processes[0].pid)
    end = time.monotonic() + seconds
    samples = []
    while time.monotonic() < end:
        assert life.processes[0].poll() is None, life.tails()
        if life.reached(1):
            samples.append(
                {
                    "minutes": (time.monotonic() - began) / 60,
                    "memory_mib": process.memory_info().rss / 2**20,
                    "files": float(process.num_fds()),
                    "threads": float(process.num_threads()),
                }
            )
        time.sleep(PERIOD_S)
    return samples


def medians(life: list[dict[str, float]]) -> dict[str, Any]:
    """What a life held in its second and in its last quarter."""
    quarters = [_quarter(life, k) for k in (1, 3)]
    return {key: [round(_median(each, key), 1) for each in quarters] for key in MOST}


def _highest(report: list[dict[str, Any]], key: str, quarter: int) -> float:
    return round(max(life[key][quarter] for life in report), 1)


def _quarter(life: list[dict[str, float]], number: int) -> list[dict[str, float]]:
    return life[number * len(life) // 4 : (number + 1) * len(life) // 4]


def _median(samples: list[dict[str, float]], key: str) -> float:
    return float(np.median([sample[key] for sample in samples]))


def plot(lives: list[list[dict[str, float]]], path: pathlib.Path) -> None:
    """Memory, file handles and threads over time, with the kills."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5.5), layout="constrained")
    axes = figure.subplots(len(MOST), 1, sharex=True)
    labels = ("memory (MiB)", "file handles", "threads")
    for axis, key, label in zip(axes, MOST, labels, strict=True):
        for life in lives:
            axis.plot([each["minutes"] for each in life], [each[key] for each in life], color="C0")
        for before, after in itertools.pairwise(lives):
            killed = (before[-1]["minutes"] + after[0]["minutes"]) / 2
            axis.axvline(killed, color="C3", linestyle=":")
        axis.set_ylim(bottom=0)
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[-1].set_xlabel("minutes of training with checkpoints and evaluations (dotted: SIGKILL)")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
