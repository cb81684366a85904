"""What follows a loss or gradient that is not finite: `train.on_nan`."""

import math
from typing import Literal

from jaxres.logs.run_log import NullLog, RunLog
from jaxres.runtime.errors import TrainingFailed
from jaxres.training.saving import Saver

MAX_ROLLBACKS = 5  # in a run
MAX_SKIPPED = 100  # in a row

OnNan = Literal["stop", "skip", "rollback"]


class NotFinite:
    """Reads the numbers of each log window, the moment a run learns of what its steps gave."""

    def __init__(self, on_nan: OnNan, saver: Saver, log: RunLog | NullLog):
        """Act as `train.on_nan` says."""
        self._on_nan = on_nan
        self._saver = saver
        self._log = log
        self._skipped = 0  # steps in a row, up to the last

    def back_to(self, numbers: dict[str, float], step: int) -> int | None:
        """The checkpoint whose state is to be taken for that of this step, if one is.

        The steps since are passed over, for their images, which would come again, may be what it
        was about.
        """
        bad = _first_not_finite(numbers)
        if not bad or self._on_nan != "rollback":
            return None
        self._saver.check()
        saved, before = self._saver.saved, self._saver.progress.rollbacks
        if saved is None or len(before) == MAX_ROLLBACKS:
            return None
        before.append({"step": step, "to": saved})
        self._log.say(
            f"warning: {bad} is {numbers[bad]} at step {step}: resuming from the state of "
            f"step {saved} ({len(before)} of at most {MAX_ROLLBACKS} times)"
        )
        return saved

    def all_skipped(self, numbers: dict[str, float], step: int) -> bool:
        """Tell of steps that were skipped; whether the window has no other.

        Raises:
            TrainingFailed: too many in a row were.
        """
        skipped, last = int(numbers["skipped"]), int(numbers["skipped_last"])
        self._skipped = last if numbers["taken"] else self._skipped + last
        if skipped:
            self._log.say(
                f"warning: {skipped} of the steps up to {step} skipped: their loss or "
                "gradient is not finite"
            )
        if self._skipped >= MAX_SKIPPED:
            raise TrainingFailed(
                f"the last {self._skipped} steps up to {step} had a loss or "
                f"gradient that is not finite: stopped; {self._saver.kept()}"
            )
        return not numbers["taken"]

    def require_finite(self, numbers: dict[str, float], step: int) -> None:
        """Stop the run at a number of its training steps that is not finite.

        Raises:
            TrainingFailed: there is one.
        """
        advice = "; to pass over such steps, resume with --train.on-nan skip or rollback"
        self._stop_at(numbers, step, advice if self._on_nan == "stop" else "")

    def require_finite_evaluation(self, loss: float, step: int) -> None:
        """Stop the run at a validation loss that is not finite.

        Raises:
            TrainingFailed: it is not.
        """
        self._stop_at({"validation loss": loss}, step, "")

    def _stop_at(self, numbers: dict[str, float], step: int, advice: str) -> None:
        if bad := _first_not_finite(numbers):
            raise TrainingFailed(
                f"{bad} is {numbers[bad]} at step {step}: stopped; {self._saver.kept()}{advice}"
            )


def _first_not_finite(numbers: dict[str, float]) -> str | None:
    return next((key for key, value in numbers.items() if not math.isfinite(value)), None)
