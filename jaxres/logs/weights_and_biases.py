"""A run's metrics for Weights & Biases: sent, or with WANDB_MODE=offline kept in files."""

import importlib
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxres.logs.tracker import numbers_of
from jaxres.runtime.errors import InputError, brief

INIT_S, FINISH_S = 60, 600  # how long the service may take
OFFLINE = "WANDB_MODE=offline keeps the run in files for `wandb sync`"


class WeightsAndBiases:
    """A run of a project, by an identity kept in the run's directory: a resumed run goes on in it.

    Metrics are drawn over JaxRes's step. What a killed run had sent after its last checkpoint stays
    there, under the same steps as what the resumed run sends.
    """

    def __init__(self, project: str, run_dir: Path, settings: Mapping[str, Any]):
        """Begin or go on.

        Args:
            project: `PROJECT` or `ENTITY/PROJECT`.
            run_dir: Its name is the run's; `run_dir/wandb` takes the service's files.
            settings: Of the run, nested.

        Raises:
            InputError: the package is missing, nobody is logged in, or the service does not answer.
        """
        self.place = f"Weights & Biases, project {project}"
        try:
            wandb: Any = importlib.import_module("wandb")
        except ImportError:
            raise InputError(
                f"log.wandb is '{project}', but wandb is not installed: pip install '.[wandb]'"
            ) from None
        entity, _, name = project.rpartition("/")
        try:
            self._run = wandb.init(
                entity=entity or None,
                project=name,
                id=_identity(run_dir / "wandb"),
                resume="allow",
                name=run_dir.resolve().name,
                dir=run_dir,
                config=dict(settings),
                settings=wandb.Settings(
                    silent=True,
                    console="off",  # the run says on standard error what there is to say
                    init_timeout=INIT_S,
                    finish_timeout=FINISH_S,
                ),
            )
            self._run.define_metric("*", step_metric="step")
        except (wandb.Error, OSError, ValueError) as error:  # the last: of WANDB_ variables
            raise InputError(
                f"log.wandb is '{project}', but its run cannot begin: {brief(error)}; {OFFLINE}"
            ) from error

    def add(self, row: dict[str, Any]) -> None:
        """The numbers of a row, as `SPLIT/KEY`.

        Raises:
            OSError: they cannot be handed on.
        """
        self._pass_on(lambda: self._run.log({"step": row["step"], **numbers_of(row)}))

    def close(self, *, failed: bool) -> None:
        """Wait until all is sent, ten minutes at most.

        Raises:
            OSError: it cannot be.
        """
        self._pass_on(lambda: self._run.finish(exit_code=int(failed)))

    def _pass_on(self, act: Any) -> None:
        try:
            act()
        # Whatever befalls its process or its connection, the training goes on.
        except Exception as error:
            raise OSError(brief(error)) from error


def _identity(folder: Path) -> str:
    """By what the service knows the run, made when it began."""
    file = folder / "jaxres-run-id"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(uuid.uuid4().hex[:16])
    return file.read_text().strip()
