"""Saving while training continues: one write at a time, and what follows if one fails."""

from collections.abc import Callable
from typing import Any

from jaxres.checkpoint.manager import Checkpoints
from jaxres.checkpoint.progress import Progress, Row
from jaxres.distributed.process_group import ProcessGroup
from jaxres.logs.run_log import NullLog, RunLog
from jaxres.runtime.errors import TrainingFailed, os_reason


class Saver:
    """Writes a run's checkpoints; `saved` is the newest step that is written or being written."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        progress: Progress,
        group: ProcessGroup,
        log: RunLog | NullLog,
        saved: int | None,
    ):
        """Continue from the checkpoint of step `saved`; `progress` is the run's own."""
        self.saved = saved
        self._checkpoints = checkpoints
        self.progress = progress
        self._group = group
        self._log = log
        group.kept = self.kept()
        self._config: dict[str, Any] = {}

    def start(self, step: int, items: dict[str, Any], config: dict[str, Any]) -> None:
        """Begin to write a state's items, after `check` of the checkpoint before."""
        progress = self.progress.to_json()
        self._checkpoints.save(step, items, progress=progress, config=config)
        self.saved = step
        self._group.kept = (
            f"step {step} was being saved, and the same command resumes from the newest whole "
            f"checkpoint in '{self._checkpoints.folder.parent}'"
        )
        self._config = config

    def add_evaluation(self, row: Row) -> None:
        """Note the evaluation of the checkpoint that is being written, there as well."""
        self.progress.note(row)
        if self.check() or self.saved != row["step"]:
            return
        try:
            self._checkpoints.add_evaluation(row["step"], row)
        except OSError as error:
            reason = os_reason(error)
            self._log.say(f"warning: the evaluation is not in its checkpoint ({reason})")

    def drop(self, step: int) -> None:
        """Remove the checkpoint being written, which is of no use, unless it is all there is."""
        if self.check() or self.saved != step:
            return
        others, *_ = self._group.gather(str(len(self._checkpoints.steps()) - 1))
        if others == "0":
            return
        self._checkpoints.remove(step)
        self.saved = agreed_latest(self._checkpoints, self._group)
        self._group.kept = self.kept()

    def check(self) -> str:
        """Wait for the last write; if it failed, why: warn, and go by what there is instead."""
        problem = next(filter(None, self._group.gather(self._checkpoints.finish())), "")
        if problem:
            failed, self.saved = self.saved, agreed_latest(self._checkpoints, self._group)
            self._log.say(f"warning: step {failed} could not be saved ({problem}); {self.kept()}")
            self.progress.keep_best_of(self._checkpoints.steps())
        self._checkpoints.wait_until_visible(self.saved)
        self._group.kept = self.kept()
        return problem

    def finish(self, step: int, items: Callable[[], dict[str, Any]]) -> None:
        """Wait for the last write of the run, of `step`; if it failed, try once more.

        Raises:
            TrainingFailed: it failed again.
        """
        self.check()
        if step in (0, self.saved):
            return
        self.progress.keep_best_of([*self._checkpoints.steps(), step])
        self.start(step, items(), self._config)
        if problem := self.check():
            raise TrainingFailed(f"step {step} could not be saved ({problem}); {self.kept()}")

    def kept(self) -> str:
        """What is left of the run if it ends now."""
        if not self.saved:
            return "no checkpoint is saved yet"
        folder = self._checkpoints.folder.parent
        return (
            f"the checkpoint of step {self.saved} is kept in '{folder}', "
            "and the same command resumes from there"
        )


def agreed_latest(checkpoints: Checkpoints, group: ProcessGroup) -> int | None:
    """The newest finished checkpoint, as the first process sees them."""
    latest, *_ = group.gather(str(checkpoints.latest() or ""))
    return int(latest) if latest else None
