"""What a finished run says of itself: results, speed, devices, versions, commit and command."""

import importlib.metadata
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from jaxres import __version__
from jaxres.checkpoint.progress import Progress
from jaxres.config import Config
from jaxres.data.composed import ComposedDataset

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "numpy",
    "opencv-python-headless",
)


def summarise(
    config: Config,
    parameters: int,
    splits: Mapping[str, ComposedDataset],
    progress: Progress,
    test: dict[str, Any],
    mesh: Mesh,
) -> dict[str, Any]:
    """The contents of `summary.json`.

    Of the data it holds each split's number of `examples` and `checksum`
    (`ComposedDataset.fingerprint`), and what a `partial` dataset lacks.

    Speed and waiting are over all timed steps of all processes that worked on the run; compiling
    and the first step after it, evaluation and checkpoints are left out. `compile_cache` says how
    the last of them came by its training step: `hit`, `miss` or `off`.
    """
    totals = progress.totals
    seconds = totals["seconds"]
    return {
        "model": config.model.name,
        "dataset": config.data.dataset,
        "data": {
            **{split: each.fingerprint for split, each in splits.items()},
            "partial": splits["train"].source.partial,
        },
        "parameters": parameters,
        "test": test,
        "best": progress.best,
        "images_per_s": totals["pictures"] / seconds if seconds else None,
        "compile_s": totals["compile_s"],
        "compile_cache": progress.compile_cache,
        "evaluate_s": totals["evaluate_s"],
        "checkpoint_s": totals["checkpoint_s"],
        "data_wait_share": totals["wait_s"] / seconds if seconds else None,
        **environment(mesh),
    }


def environment(mesh: Mesh) -> dict[str, Any]:
    """Devices, versions, commit, command and date: what a number is worth nothing without."""
    device = mesh.devices.flat[0]
    return {
        "devices": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": mesh.size,
            "processes": jax.process_count(),
        },
        "versions": versions(),
        "commit": _commit(),
        "command": shlex.join(["jaxres", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def versions() -> dict[str, str]:
    """Versions of Python, JaxRes and the packages that results depend on."""
    return {
        "python": platform.python_version(),
        "jaxres": __version__,
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _commit() -> str | None:
    """The commit of this source checkout (`-dirty` with changes), None for an installed package."""
    source = Path(__file__).resolve().parents[2]
    if not (source / ".git").exists():
        return None
    try:
        commit = _git(source, "rev-parse", "HEAD")
        # Not results/: what `jaxres reproduce` writes there is no change of what makes it.
        changed = _git(source, "status", "--porcelain", "-uno", "--", ".", ":(exclude)results")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if changed else commit


def _git(source: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(source), *words], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
