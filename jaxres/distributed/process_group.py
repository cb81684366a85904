"""Several processes as one run: joining, agreeing, and noticing that one of them is gone.

JAX's runtime connects the processes; what it keeps for them, a small table of keys and values, is
what they agree through here (Orbax takes the same way to it). JAX would end a process whose peer
is lost with a stack trace of its own: `ProcessGroup.watched` is there before it, with one sentence.
"""

import contextlib
import itertools
import json
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
from jax._src import distributed

from jaxres.distributed import launchers
from jaxres.runtime.deadlines import deadline, exit_now
from jaxres.runtime.errors import InputError, Interrupted, TrainingFailed, brief

JAX_LIMIT = 4  # times ours, after which JAX ends a process that we did not
ABANDONED_S = 4  # within which the others learn why this process leaves
GATHER_S = 24 * 3600  # no limit of its own: what takes this long is lost, and seen to be


class ProcessGroup:
    """The processes of a run, this one among them; alone, everything is agreed at once."""

    def __init__(self, index: int = 0, count: int = 1, client: Any = None):
        self.index = index
        self.count = count
        self.kept = "nothing is saved yet"  # what is left of the run if it ends now
        self._client = client
        self._rounds = itertools.count()
        self._watched = 0  # runs of these processes before
        self._watch: Watch | None = None

    @property
    def first(self) -> bool:
        """Whether this process writes what is written once: logs, settings, the summary."""
        return self.index == 0

    def gather(self, text: str) -> list[str]:
        """What every process gives here, by its number; each must come to the same places."""
        if self.count == 1:
            return [text]
        place = f"jaxres/gather/{next(self._rounds)}"
        self._client.key_value_set(f"{place}/{self.index}", text)
        return [
            self._client.blocking_key_value_get(f"{place}/{k}", GATHER_S * 1000)
            for k in range(self.count)
        ]

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A part that every process goes through; where it fails on one, it fails on all.

        Raises:
            InputError: with the message of the first process that it failed on.
        """
        try:
            yield
        except Exception as error:
            self.gather(str(error) or type(error).__name__)
            raise
        for process, problem in enumerate(self.gather("")):
            if problem:
                raise InputError(f"process {process} of {self.count} stopped: {problem}")

    def require_same(self, values: dict[str, Any]) -> None:
        """Refuse processes that differ in one of these plain values.

        Raises:
            InputError: naming what differs, on every process alike.
        """
        first, *others = (json.loads(text) for text in self.gather(json.dumps(values)))
        for process, other in enumerate(others, 1):
            for key in sorted(first.keys() | other.keys()):
                if first.get(key) != other.get(key):
                    raise InputError(
                        f"process {process} has {key} {other.get(key)}, process 0 has "
                        f"{first.get(key)}; start all {self.count} with the same recipe, flags, "
                        "data and versions"
                    )

    @contextlib.contextmanager
    def watched(self, timeout_s: int) -> Iterator[None]:
        """While open, end this process if another fails, or does not answer for `timeout_s`."""
        if self.count == 1:
            yield
            return
        if self._watch is not None:  # of a run that failed; nobody ended the process
            self._watch.end("")
        self._watch = Watch(self, self._client, timeout_s, self._watched)
        self._watched += 1
        try:
            yield
        except Interrupted:
            self._watch.end("")
            raise
        except (InputError, TrainingFailed):
            raise
        except Exception:
            # Mostly a peer that broke off in the middle of an exchange: the watch will name it.
            time.sleep(timeout_s + 2 * self._watch.period_s)
            raise
        self._watch.end("")

    def abandon(self, problem: str, status: int) -> None:
        """Leave for good after a failure, without JAX's waiting for the others to leave too."""
        if self.count == 1:
            return
        if self._watch is None:
            self._watch = Watch(self, self._client, ABANDONED_S, self._watched)
        self._watch.end(problem)
        if self.first:  # which keeps the table that the others read
            time.sleep(3 * self._watch.period_s)
        exit_now(status)


ALONE = ProcessGroup()
_joined = ALONE


class Watch:
    """Two threads of a process: one signs that it lives and reads the others' signs, one judges.

    Of each `run` of the same processes, by its number, the signs are others.
    """

    def __init__(self, group: ProcessGroup, client: Any, timeout_s: int, run: int):
        self._ends, self._lives = f"jaxres/{run}/ended", f"jaxres/{run}/alive"
        self.period_s = min(2.0, timeout_s / 8)
        self._group = group
        self._client = client
        self._timeout_s = timeout_s
        now = time.monotonic()
        # The last sign of each process, and when it was new.
        self._signs: dict[int, tuple[str, float]] = dict.fromkeys(range(group.count), ("", now))
        self._ended: dict[int, str] = {}
        self._over = threading.Event()
        for task in (self._sign, self._judge):
            threading.Thread(target=task, daemon=True).start()

    def end(self, problem: str) -> None:
        """Say that this process needs no more watching: it is done, or has a problem."""
        self._over.set()
        with contextlib.suppress(Exception):  # the table is gone with the first process
            self._client.key_value_set(f"{self._ends}/{self._group.index}", problem or "done")

    def _sign(self) -> None:
        for count in itertools.count():
            with contextlib.suppress(Exception):  # judged by its silence
                mine = f"{self._lives}/{self._group.index}"
                self._client.key_value_set(mine, str(count), allow_overwrite=True)
                self._ended |= self._table(self._ends)
                for process, sign in self._table(self._lives).items():
                    if sign != self._signs[process][0]:
                        self._signs[process] = (sign, time.monotonic())
            if self._over.wait(self.period_s):
                return

    def _table(self, folder: str) -> dict[int, str]:
        entries = self._client.key_value_dir_get(folder)
        return {int(key.rpartition("/")[2]): value for key, value in entries}

    def _judge(self) -> None:
        while not self._over.wait(self.period_s):
            for process, problem in sorted(self._ended.items()):
                if problem != "done" and process != self._group.index:
                    self._stop(f"process {process} of {self._group.count} stopped: {problem}")
            limit = time.monotonic() - self._timeout_s
            silent = [
                process
                for process, (_, at) in self._signs.items()
                if at < limit and process not in self._ended
            ]
            # Signs go through process 0: without it, one's own is missing as well.
            if self._group.index in silent:
                silent = [0]
            if silent:
                self._stop(
                    f"process {silent[0]} of {self._group.count} has not answered for "
                    f"{self._timeout_s:g} s"
                )

    def _stop(self, problem: str) -> None:
        if self._over.is_set():
            return
        print(f"error: {problem}: stopped; {self._group.kept}", file=sys.stderr, flush=True)
        if self._group.first:
            time.sleep(2 * self.period_s)  # the others read the same before the table goes
        exit_now(1)


def join(*, join_timeout_s: int, peer_timeout_s: int) -> ProcessGroup:
    """This process as one of its run's, if it was started as one of several.

    It was, if JAXRES_COORDINATOR, JAXRES_PROCESS_ID and JAXRES_PROCESS_COUNT say so, or Slurm,
    Open MPI, an indexed Kubernetes job or a TPU pod, which JAX reads by itself. Must come before
    JAX uses a device.

    Raises:
        InputError: the variables are incomplete or wrong, or the coordinator cannot start.
    """
    global _joined
    if _joined is not ALONE:
        return _joined
    given = launchers.given()
    launcher = launchers.launcher() if given is None else ""
    if not given and not launcher:
        return ALONE
    given = given or {}
    where = given.get("coordinator_address", launcher)
    waiting = f"the run's processes have not all come together ({where}) within {join_timeout_s} s"
    with deadline(join_timeout_s, waiting, status=2):
        try:
            jax.distributed.initialize(
                **given,
                local_device_ids=launchers.devices_of_this_host(),
                initialization_timeout=JAX_LIMIT * join_timeout_s,
                heartbeat_timeout_seconds=JAX_LIMIT * peer_timeout_s,
                shutdown_timeout_seconds=peer_timeout_s,
            )
        except Exception as error:
            raise InputError(
                f"cannot join the run's processes ({where}): {brief(error)}"
            ) from error
    state = distributed.global_state
    if state.num_processes > 1:
        _joined = ProcessGroup(state.process_id, state.num_processes, state.client)
    return _joined


def abandon(problem: str, status: int) -> None:
    """End a process of several that failed, and tell the others why."""
    _joined.abandon(problem, status)
