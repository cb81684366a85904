"""The run directory: whose it is, and what it was made with."""

import contextlib
import shutil
import time
import types
import uuid
from pathlib import Path
from typing import Any

import filelock

from jaxres.checkpoint.manager import Checkpoints
from jaxres.config import Config, differing_keys, listed, to_dict
from jaxres.distributed.process_group import ALONE, ProcessGroup
from jaxres.runtime.errors import InputError, os_reason
from jaxres.runtime.files import lock
from jaxres.runtime.paths import require_path

# What a run killed in its first moments can leave without any checkpoint folder.
FIRST_MADE = {"lock"}
SHARED_S = 10  # within which a file that one host writes is seen by the others


class RunDirectory:
    """A run directory that this run holds: its lock, of the first process, and its checkpoints."""

    def __init__(self, path: Path, config: Config, group: ProcessGroup = ALONE):
        """Take a directory, new or of a run to resume.

        Raises:
            InputError: it is something else, in use, was made with other settings, or is not the
                same for all processes.
        """
        self.path = path
        self._is_new = False
        self._kept = False
        with contextlib.ExitStack() as opened:
            opened.callback(self._remove_if_not_begun)
            token = uuid.uuid4().hex
            with group.together():
                if group.first:
                    self._take(opened, token)
            if group.count > 1:
                token, *_ = group.gather(token)
                with group.together():
                    _require_shared(path, token)
            self.checkpoints = Checkpoints(path / "checkpoints", config.checkpoint)
            opened.callback(self.checkpoints.close)
            if (latest := self.checkpoints.latest()) is not None:
                _check_same(config, self.checkpoints.read_config(latest), path)
            self.opened = opened.pop_all()

    def _take(self, opened: contextlib.ExitStack, token: str) -> None:
        """Make the folder and its lock, with something in it by which to know it."""
        path = self.path
        require_path("--output-dir", str(path))
        try:
            self._is_new = not path.exists()
            if not self._is_new:
                _require_ours(path)
            path.mkdir(parents=True, exist_ok=True)
            opened.enter_context(lock(path / "lock", timeout_s=0))
            (path / "lock").write_text(token)
        except filelock.Timeout:
            raise InputError(f"another process is training in '{path}'") from None
        except OSError as error:
            raise InputError(f"cannot write to --output-dir '{path}': {os_reason(error)}") from None

    def keep(self) -> None:
        """The run has begun: its directory stays, whatever comes."""
        self._kept = True

    def __enter__(self) -> "RunDirectory":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        """Finish writing and release; remove a new directory of a run that did not begin."""
        self.opened.__exit__(kind, error, trace)

    def _remove_if_not_begun(self) -> None:
        if self._is_new and not self._kept and self.path.is_dir():
            shutil.rmtree(self.path)


def _require_shared(path: Path, token: str) -> None:
    """Refuse a folder that is another one on the first process's host."""
    deadline = time.monotonic() + SHARED_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if (path / "lock").read_text() == token:
                return
        time.sleep(0.1)
    raise InputError(
        f"--output-dir '{path}' is not the folder that process 0 writes to; "
        "allowed: one on a file system that all hosts share"
    )


def _require_ours(path: Path) -> None:
    """Refuse a directory with anything in it that is not a run's."""
    if not path.is_dir():
        raise InputError(f"--output-dir is '{path}', which is a file; allowed: a folder")
    names = {entry.name for entry in path.iterdir()}
    if names - FIRST_MADE and not (path / "checkpoints").is_dir():
        raise InputError(
            f"--output-dir is '{path}', which holds other files; "
            "allowed: a new or empty folder, or that of a run to resume"
        )
    if (path / "checkpoints" / "0").is_dir():  # a run saves after its first step at the earliest
        raise InputError(
            f"'{path}' holds imported weights, not a run: "
            "give it as model.init_from and choose another --output-dir"
        )


def _check_same(config: Config, saved: dict[str, Any], run_dir: Path) -> None:
    """Refuse to resume with settings that contradict the checkpoint's."""
    differing = differing_keys(to_dict(config), saved)
    if not differing:
        return
    raise InputError(
        f"'{run_dir}' holds a run with other settings ({listed(differing)}): "
        f"give the same settings, or another --output-dir, with --model.init-from '{run_dir}' to "
        "train on from its weights"
    )
