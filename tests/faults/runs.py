"""`jaxres train` in processes of its own, one or several, to be disturbed from outside."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import jax
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from benchmarks.timing import rows as results
from jaxres.checkpoint.reader import open_run
from jaxres.distributed.launchers import VARIABLES
from tests.conftest import QUICKLY

ROOT = pathlib.Path(__file__).resolve().parents[2]
LONGEST_S = 3600  # of a run of thousands of steps, on such a machine
SECONDS = 240  # within which a run of these tests ends, on a machine that is busy with others


class Run:
    """A run's processes, and what each of them said."""

    def __init__(
        self,
        run_dir: pathlib.Path,
        flags: Sequence[Sequence[str]],
        *,
        devices: int = 1,
        environment: Sequence[Mapping[str, str]] = ({},),
        recipe: pathlib.Path | None = None,
        log_dir: pathlib.Path | None = None,
    ):
        """Start a process for each list of `flags`, on so many virtual devices each."""
        self.run_dir = run_dir
        log_dir = log_dir or run_dir.parent
        if recipe is None:
            recipe = log_dir / "recipe.yaml"
            recipe.write_text("{}")
        self.logs = [log_dir / f"{run_dir.name}.{k}.log" for k in range(len(flags))]
        self.processes: list[subprocess.Popen[bytes]] = []
        self._copiers: list[threading.Thread] = []
        for log in self.logs:
            log.write_bytes(b"")
        for log, words, variables in zip(self.logs, flags, environment, strict=True):
            command = [sys.executable, "-m", "tests.tiny", "train", str(recipe)]
            process = subprocess.Popen(
                [*command, "--output-dir", str(run_dir), *words],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, **QUICKLY, "JAX_NUM_CPU_DEVICES": str(devices), **variables},
            )
            # Through a pipe, so that what limits the process does not limit this.
            copier = threading.Thread(target=_copy, args=(process.stdout, log), daemon=True)
            copier.start()
            self._copiers.append(copier)
            self.processes.append(process)

    def said(self, process: int = 0) -> str:
        """Everything that a process has written."""
        return self.logs[process].read_text(errors="replace")

    def errors(self) -> list[str]:
        """The last line of each process that speaks of an error."""
        found = [re.findall(r"^error: .*$", self.said(k), re.MULTILINE) for k in range(len(self))]
        return [lines[-1] if lines else "" for lines in found]

    def __len__(self) -> int:
        return len(self.processes)

    def wait(self, timeout_s: float = SECONDS) -> list[int]:
        """The exit status of every process."""
        limit = time.monotonic() + timeout_s
        try:
            ends = [process.wait(max(0.0, limit - time.monotonic())) for process in self.processes]
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {timeout_s} s: {self.tails()}")
        for copier in self._copiers:
            copier.join(10)
        return ends

    def finish(self, timeout_s: float = SECONDS) -> None:
        """Wait for an undisturbed end."""
        assert self.wait(timeout_s) == [0] * len(self), self.tails()

    def tails(self) -> str:
        """The end of what each process said; of one that has ended, all of it has come."""
        for process, copier in zip(self.processes, self._copiers, strict=True):
            if process.poll() is not None:
                copier.join(10)
        return "\n".join(f"process {k}: {self.said(k)[-2000:]}" for k in range(len(self)))

    def reached(self, step: int) -> bool:
        """Whether the run has logged this step or a later one."""
        return last_step(self.run_dir) >= step

    def wait_for_step(self, step: int) -> None:
        """Until the run has logged this step, while all processes run."""
        limit = time.monotonic() + SECONDS
        while not self.reached(step):
            ended = any(process.poll() is not None for process in self.processes)
            if ended or time.monotonic() > limit:
                pytest.fail(f"no step {step}: {self.tails()}")
            time.sleep(0.005)

    def send(self, number: signal.Signals, process: int = 0) -> None:
        """A signal to one process."""
        self.processes[process].send_signal(number)

    def kill(self) -> None:
        """End what still runs."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
        for copier in self._copiers:
            copier.join(10)


def _copy(source: IO[bytes], log: pathlib.Path) -> None:
    with source, log.open("ab", buffering=0) as file:
        while data := source.read1(1 << 16):  # type: ignore[attr-defined]
            file.write(data)


@contextlib.contextmanager
def run(
    run_dir: pathlib.Path,
    flags: Sequence[str],
    *,
    processes: int = 1,
    devices: int = 1,
    each: Sequence[Sequence[str]] | None = None,
    recipe: pathlib.Path | None = None,
    log_dir: pathlib.Path | None = None,
) -> Iterator[Run]:
    """A run of one or several processes, none of which outlives the block; `each` has own flags."""
    each = each or [[]] * processes
    environment = [{}] if processes == 1 else variables(processes)
    words = [[*flags, *own] for own in each]
    started = Run(
        run_dir, words, devices=devices, environment=environment, recipe=recipe, log_dir=log_dir
    )
    try:
        yield started
    finally:
        started.kill()


def made_by() -> dict[str, Any]:
    """What made a report of runs, of which each has one device, whatever this process has."""
    return results.made_by() | {"device_count": 1}


def variables(processes: int) -> list[dict[str, str]]:
    """What makes so many processes one run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    values = [(coordinator, str(k), str(processes)) for k in range(processes)]
    return [dict(zip(VARIABLES, each, strict=True)) for each in values]


def last_step(run_dir: pathlib.Path) -> int:
    """The last step that a run has logged, 0 if none; also while it writes, or was killed."""
    path = run_dir / "metrics.jsonl"
    if not path.exists():
        return 0
    return max(map(int, re.findall(r'"step": (\d+),', path.read_text())), default=0)


def weights(run_dir: pathlib.Path, step: int | None = None) -> list[np.ndarray]:
    """The weights of a run's checkpoint, by default the last."""
    checkpoints = open_run(run_dir)
    step = checkpoints.find("last") if step is None else step
    tree = checkpoints.read_weights(step, SingleDeviceSharding(jax.devices()[0]))
    checkpoints.close()
    return jax.tree.leaves(jax.device_get(tree))


def rows(run_dir: pathlib.Path, split: str) -> list[dict[str, float]]:
    """The rows of a split that a run has logged."""
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["split"] == split]


def plans(path: pathlib.Path) -> dict[tuple[int, int], str]:
    """What a run with PLAN_LOG noted: the hash of each image, by step and position.

    The same whenever again.
    """
    found: dict[tuple[int, int], str] = {}
    for line in path.read_text().splitlines():
        step, position, crc = line.split()
        assert found.setdefault((int(step), int(position)), crc) == crc
    return found
