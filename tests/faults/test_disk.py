"""A disk that is full for a while: the run goes on, warns, and keeps what it has.

A limit on the size of files, set from outside, stands in for the full disk: past it, writing fails
as it does there. Where a small file system can be mounted, a really full one is tried as well.
"""

import contextlib
import json
import pathlib
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from jaxres.checkpoint.reader import open_run
from tests.faults.runs import ROOT, Run, rows, run

FLAGS = [
    "--train.epochs=40",
    "--checkpoint.every-steps=5",
    "--checkpoint.keep-last=3",
    "--train.log-every-steps=1",
    "--optim.name=adamw",
]
NO_LIMIT = resource.RLIM_INFINITY


def limit(run: Run, size: int) -> None:
    """Let no file of the run's process grow past `size` bytes."""
    resource.prlimit(run.processes[0].pid, resource.RLIMIT_FSIZE, (size, NO_LIMIT))


def wait_for(run: Run, words: str) -> None:
    """Until the run has said something."""
    deadline = time.monotonic() + 120
    while words not in run.said():
        assert time.monotonic() < deadline, run.tails()
        assert run.processes[0].poll() is None, run.tails()
        time.sleep(0.01)


@pytest.mark.slow
def test_a_run_goes_on_past_checkpoints_and_logs_that_cannot_be_written(
    tmp_path: pathlib.Path, tiny_flags: list[str]
) -> None:
    with run(tmp_path / "run", [*tiny_flags, *FLAGS]) as full:
        full.wait_for_step(22)
        limit(full, 2000)
        wait_for(full, "could not be saved (File too large)")
        wait_for(full, "warning: cannot write")
        kept = open_run(tmp_path / "run")
        step = kept.steps()[0]
        kept.read(step, "progress")  # whole
        kept.close()
        failed = max(row["step"] for row in rows(tmp_path / "run", "train"))
        limit(full, NO_LIMIT)
        full.wait_for_step(int(failed) + 40)
        full.finish()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    steps = [row["step"] for row in map(json.loads, lines) if row["split"] == "train"]
    assert steps == list(range(1, 401))  # what could not be written came later
    names = [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert all(name.isdecimal() for name in names), names
    assert open_run(tmp_path / "run").latest() == 400


@pytest.mark.slow
def test_a_last_checkpoint_that_cannot_be_written_is_a_failure_that_can_be_made_good(
    tmp_path: pathlib.Path, tiny_flags: list[str]
) -> None:
    flags = [*tiny_flags, *FLAGS, "--train.epochs=12"]
    with run(tmp_path / "run", flags) as full:
        full.wait_for_step(22)
        limit(full, 2000)
        assert full.wait() == [1]
        assert "step 120 could not be saved (File too large)" in full.errors()[0]
        assert "and the same command resumes from there" in full.errors()[0]
    with run(tmp_path / "run", flags) as again:
        again.finish()


@pytest.mark.slow
def test_a_full_disk_behind_standard_error_does_not_end_a_run(
    tmp_path: pathlib.Path, tiny_flags: list[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text("{}")
    command = [sys.executable, "-m", "tests.tiny", "train", str(tmp_path / "recipe.yaml")]
    with pathlib.Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [*command, "--output-dir", str(tmp_path / "run"), *tiny_flags],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=full,
            text=True,
            check=False,
        )
    assert "test accuracy" in ended.stdout
    assert (tmp_path / "run" / "summary.json").is_file()


@pytest.fixture
def small_disk(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if not shutil.which("mount"):
        pytest.skip("no mount here")
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"a small file system cannot be mounted: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: pathlib.Path) -> None:
    """Write to a file until its disk is full."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)) == 4096:
            pass


def test_a_really_full_disk(
    small_disk: pathlib.Path, tmp_path: pathlib.Path, tiny_flags: list[str]
) -> None:
    with run(
        small_disk / "run", [*tiny_flags, *FLAGS, "--train.epochs=8"], log_dir=tmp_path
    ) as full:
        full.wait_for_step(22)
        ballast = small_disk / "ballast"
        fill(ballast)
        wait_for(full, "could not be saved (No space left on device)")
        ballast.unlink()
        full.finish()
    assert open_run(small_disk / "run").latest() == 80
