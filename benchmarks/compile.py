"""Cold and warm starts: from the start of the process to the end of the first training step.

Every start is `jaxres train` in a fresh process, on scikit-learn's digits. A cold one finds an
empty compilation cache, the warm one after it what the cold one left. Two rows per case.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.timing import rows
from benchmarks.timing.measure import MIN_REPEATS

QUICKSTART = Path(__file__).parents[1] / "configs" / "quickstart.yaml"
COLUMNS = {
    "case": "case",
    "batch": "batch_size",
    "compile s": "compile_s",
    "min": "compile_spread_s.min",
    "max": "compile_spread_s.max",
    "start s": "start_s.median",
    "start min": "start_s.min",
    "start max": "start_s.max",
    "cache": "cache",
}


def main(words: Sequence[str] | None = None) -> int:
    """Status 0; 1 if a training failed, whose own words then say why."""
    made = rows.parser("compile", __doc__)
    add = made.add_argument
    add("--model", type=rows.names, default=["resnet18"], help="models, with commas")
    add("--image-size", type=rows.numbers, default=[64], help="sides in pixels, with commas")
    add("--batch-size", type=rows.numbers, default=[64], help="images per step, with commas")
    add("--repeats", type=int, default=MIN_REPEATS, help="pairs of a cold and a warm start")
    args = made.parse_args(words)
    if args.repeats < MIN_REPEATS:
        made.error(f"--repeats is {args.repeats}; allowed: {MIN_REPEATS} or more")
    measured: list[dict[str, Any]] = []
    for case in product(args.model, args.image_size, args.batch_size):
        try:
            measured += _pair(*case, repeats=args.repeats)
        except subprocess.CalledProcessError as failed:
            print(failed.stderr.strip() or f"status {failed.returncode}", file=sys.stderr)
            return 1
        rows.write(measured, args.json)
    rows.show("starts", measured, COLUMNS)
    return 0


def _pair(model: str, side: int, batch_size: int, *, repeats: int) -> list[dict[str, Any]]:
    """The rows of cold and of warm starts."""
    starts: dict[str, list[dict[str, Any]]] = {"cold": [], "warm": []}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            for kind, known in starts.items():
                known.append(_start(model, side, batch_size, Path(folder), kind))
    return [
        rows.row(
            "compile",
            f"{model} {side} px {kind}",
            dtype="float32",
            batch_size=batch_size,
            image_size=side,
            warmup=0,
            repeats=repeats,
            compile_s=statistics.median(start["compile_s"] for start in known),
            compile_spread_s=_spread([start["compile_s"] for start in known]),
            start_s=_spread([start["start_s"] for start in known]),
            cache=", ".join(sorted({start["compile_cache"] for start in known})),
        )
        for kind, known in starts.items()
    ]


def _start(model: str, side: int, batch_size: int, folder: Path, kind: str) -> dict[str, Any]:
    """One training of one step: what its summary says, and `start_s` of its first row.

    Raises:
        CalledProcessError: it failed.
    """
    run_dir = folder / kind
    settings = {
        "output-dir": run_dir,
        "train.compile-cache": folder,
        "model.name": model,
        "data.canvas": side,
        "data.digit-side": side // 2,
        "data.batch-size": batch_size,
        "train.epochs": 1,
        "train.limit-train-examples": batch_size,
        "train.limit-eval-examples": batch_size,
    }
    flags = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, "-m", "jaxres", "train", str(QUICKSTART), *flags]
    began = time.time()
    subprocess.run(command, check=True, capture_output=True, text=True, cwd=QUICKSTART.parents[1])
    first = json.loads((run_dir / "metrics.jsonl").read_text().splitlines()[0])
    summary = json.loads((run_dir / "summary.json").read_text())
    return {**summary, "start_s": first["unix_time_s"] - began}


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


if __name__ == "__main__":
    sys.exit(main())
