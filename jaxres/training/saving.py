"""Saving while training goes on: one write at a time, and what follows if one fails."""

from collections.abc import Callable
from typing import Any

from jaxres.errors import TrainingFailed
from jaxres.training.checkpoint import Checkpoints
from jaxres.training.logs import RunLog, Silence
from jaxres.training.processes import Peers
from jaxres.training.progress import Progress
from jaxres.training.state import State


class Saver:
    """Writes a run's checkpoints; `saved` is the newest step that is written or being written."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        progress: Progress,
        peers: Peers,
        log: RunLog | Silence,
        saved: int | None,
    ):
        """Go on from the checkpoint of step `saved`; `progress` is the run's own."""
        self.saved = saved
        self._checkpoints = checkpoints
        self.progress = progress
        self._peers = peers
        self._log = log
        peers.kept = self.kept()
        self._again: tuple[dict[str, Any], dict[str, float] | None] = ({}, None)

    def start(
        self, step: int, state: State, config: dict[str, Any], metrics: dict[str, float] | None
    ) -> None:
        """Begin to write a checkpoint, after `check` of the one before."""
        progress = self.progress.to_json()
        self._checkpoints.save(step, state, progress=progress, config=config, metrics=metrics)
        self.saved = step
        self._peers.kept = (
            f"step {step} was being saved, and the same command goes on from the newest whole "
            f"checkpoint in '{self._checkpoints.folder.parent}'"
        )
        self._again = (config, metrics)

    def check(self) -> str:
        """Wait for the last write; if it failed, why: warn, and go by what there is instead."""
        problem = next(filter(None, self._peers.gather(self._checkpoints.finish())), "")
        if problem:
            failed, self.saved = self.saved, agreed_latest(self._checkpoints, self._peers)
            self._log.say(f"warning: step {failed} could not be saved ({problem}); {self.kept()}")
            self.progress.keep_best_of(self._checkpoints.steps())
        self._checkpoints.see(self.saved)
        self._peers.kept = self.kept()
        return problem

    def finish(self, state: Callable[[], State]) -> None:
        """Wait for the last write of the run; if it failed, try once more with the same `state`.

        Raises:
            TrainingFailed: it failed again.
        """
        step = self.saved
        if not self.check() or step is None:
            return
        self.start(step, state(), *self._again)
        if problem := self.check():
            raise TrainingFailed(f"step {step} could not be saved ({problem}); {self.kept()}")

    def kept(self) -> str:
        """What is left of the run if it ends now."""
        if not self.saved:
            return "no checkpoint is saved yet"
        folder = self._checkpoints.folder.parent
        return (
            f"the checkpoint of step {self.saved} is kept in '{folder}', "
            "and the same command goes on from there"
        )


def agreed_latest(checkpoints: Checkpoints, peers: Peers) -> int | None:
    """The newest finished checkpoint, as the first process sees them."""
    latest, *_ = peers.gather(str(checkpoints.latest() or ""))
    return int(latest) if latest else None
