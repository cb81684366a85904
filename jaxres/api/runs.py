"""Training by a recipe, and run directories as objects."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from jaxres.api.classifier import Classifier
from jaxres.api.process import left_as_it_was
from jaxres.api.settings import Settings, as_config, as_flags
from jaxres.checkpoint import reader
from jaxres.config import Config, Split, recipe
from jaxres.data.datasets.splits import SPLITS
from jaxres.evaluation import run as evaluation
from jaxres.logs.rows import read_rows
from jaxres.runtime.errors import InputError, unknown_name
from jaxres.training import loop


class TrainedRun:
    """A run directory, whether its training has ended or still goes on.

    Attributes:
        path: The directory.
    """

    def __init__(self, run_dir: str | Path):
        """Open it.

        Raises:
            InputError: it is not a run directory.
        """
        self.path = Path(run_dir)
        if not (self.path / "checkpoints").is_dir():
            raise InputError(
                f"'{self.path}' is not a run directory: it has no folder 'checkpoints'"
            )

    def __repr__(self) -> str:
        return f"TrainedRun('{self.path}')"

    @property
    def config(self) -> Config:
        """The settings it was started with.

        Raises:
            InputError: they are missing or damaged.
        """
        return recipe.load_saved(self.path / "config.yaml")

    @property
    def summary(self) -> dict[str, Any]:
        """What `summary.json` holds: test metrics, speed, versions, commit.

        Raises:
            InputError: the run has not ended, or the file is damaged.
        """
        path = self.path / "summary.json"
        if not path.is_file():
            raise InputError(f"'{self.path}' has no summary.json: its training has not ended")
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise InputError(f"'{path}' is damaged ({error!r:.100})") from None

    def history(self, split: str | None = None) -> list[dict[str, Any]]:
        """The logged rows, of one split or of all, in order: `step`, `epoch`, `loss`, ..."""
        rows = read_rows(self.path / "metrics.jsonl")
        return [row for row in rows if split in (None, row.get("split"))]

    def checkpoints(self) -> list[int]:
        """The steps with a finished checkpoint, ascending."""
        with left_as_it_was(), contextlib.closing(reader.open_run(self.path)) as checkpoints:
            return checkpoints.steps()

    def load(self, checkpoint: str | int = "best") -> Classifier:
        """The network of a checkpoint: `best`, `last` or a step.

        Raises:
            InputError: there is no such checkpoint, or it is damaged.
        """
        return Classifier(self.path, checkpoint)

    def evaluate(
        self,
        *,
        split: str = "test",
        checkpoint: str | int = "best",
        settings: Settings | None = None,
        outputs: bool = False,
    ) -> dict[str, Any]:
        """Metrics of a checkpoint on a split, as `jaxres evaluate --json` prints them.

        Args:
            split: `train`, `validation` or `test`.
            checkpoint: `best`, `last` or a step.
            settings: Settings in the place of the run's, as `{"data.digit_side": 16}`.
            outputs: Add `outputs`, of every example in the order of the split: `logits` (float32,
                n classes), `label` and `predicted` (int32, n) and `loss` (float32, n).

        Raises:
            InputError: no such checkpoint or data, a setting that cannot be used, or weights that
                give no finite loss.
        """
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
        with left_as_it_was():
            return evaluation.evaluate(
                self.path,
                which=str(checkpoint),
                split=cast(Split, split),
                flags=as_flags(settings),
                outputs=outputs,
            )


def train(
    recipe: str | Path | Config,
    settings: Mapping[str, Any] | None = None,
    *,
    output_dir: str | Path,
    profile: bool = False,
) -> TrainedRun:
    """Train by a recipe, or resume its run in `output_dir`; then evaluate the best checkpoint.

    Args:
        recipe: A YAML file, the name of a recipe that comes with JaxRes, or a `Config`.
        settings: Settings on top, as `{"train.epochs": 2}`.
        output_dir: The run directory.
        profile: Write a `jax.profiler` trace of some steps into it.

    Progress goes to standard error. SIGTERM and SIGINT save the state and raise `Interrupted`;
    the same call resumes from there.

    Raises:
        InputError: recipe, settings, data or the run directory do not fit; nothing was changed.
        TrainingFailed: the loss is no longer finite.
        Interrupted: a signal came and the state is saved.
    """
    config = as_config(recipe, settings)
    with left_as_it_was():
        loop.train(config, Path(output_dir), profile=profile)
    return TrainedRun(output_dir)


def open_run(run_dir: str | Path) -> TrainedRun:
    """A run that is there; see `TrainedRun`.

    Raises:
        InputError: it is not a run directory.
    """
    return TrainedRun(run_dir)
