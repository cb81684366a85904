"""Checkpoints: Orbax's manager, with what JaxRes keeps in each and how damage is reported.

A checkpoint holds, as items of their own, `variables` (params and stats), `ema` (the same,
averaged, if the run averages), `optimizer` (step and optimiser state), `progress` (iterator state,
metrics so far), `config` (every setting) and `checksums` of the others. `metrics`, by which the
best are known, come once it has been evaluated.
"""

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from jaxres.checkpoint import checksum
from jaxres.checkpoint.damage import reason
from jaxres.checkpoint.progress import Row, rank, score
from jaxres.checkpoint.reader import WEIGHTS, CheckpointReader, by_itself, optimizer_item
from jaxres.config import CheckpointConfig
from jaxres.runtime.files import write_whole

PyTree = Any
UNFINISHED = ".orbax-checkpoint-tmp"  # in the name of what Orbax has not finished
SEEN_S = 60  # within which a shared file system shows what another host has written


class Checkpoints(CheckpointReader):
    """The checkpoints of a run that trains.

    Of several processes the first writes, for the state is the same on all, and each reads for
    itself: so none waits in Orbax for one that could not write. They agree in the loop.
    """

    def __init__(self, folder: Path, config: CheckpointConfig):
        """Open them; `config` says which to keep.

        Raises:
            InputError: a file that Orbax reads of every step is damaged.
        """
        self._writes = jax.process_index() == 0
        by_rank: Any = rank  # declared as giving a float; anything that sorts will do
        best = policies.BestN(
            get_metric_fn=by_rank, n=config.keep_best, keep_checkpoints_without_metrics=False
        )
        self._kept = policies.AnyPreservationPolicy([policies.LatestN(config.keep_last), best])
        self._failed: Exception | None = None
        if self._writes:
            folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder)

    def _options(self) -> ocp.CheckpointManagerOptions:
        if not self._writes:
            return super()._options()
        return ocp.CheckpointManagerOptions(
            preservation_policy=self._kept,
            best_fn=score,
            # A killed run's unfinished checkpoints carry a temporary name; remove them.
            cleanup_tmp_directories=True,
            enable_async_checkpointing=True,
            create=False,
            multiprocessing_options=by_itself(),
        )

    def save(
        self,
        step: int,
        state: PyTree,
        *,
        progress: dict[str, Any],
        config: dict[str, Any],
    ) -> None:
        """Start writing a checkpoint; returns when the state has been copied to the host.

        `state` holds replicated arrays nobody donates. Whether it came to be written, `finish`
        says, which must be called in between. Does nothing on another process than the first.
        """
        if not self._writes:
            return
        arrays = {"variables": {key: state[key] for key in WEIGHTS}}
        if "opt_state" in state:  # imported weights have none
            arrays["optimizer"] = optimizer_item(state)
        if "ema" in state:
            arrays["ema"] = state["ema"]
        if jax.process_count() > 1:  # of arrays on devices, Orbax asks every process for its part
            arrays = jax.device_get(arrays)
        values = {"progress": progress, "config": config}
        values["checksums"] = {
            **{item: checksum.of_arrays(tree) for item, tree in arrays.items()},
            **{item: checksum.of_json(value) for item, value in values.items()},
        }
        items = {
            **{item: ocp.args.StandardSave(tree) for item, tree in arrays.items()},
            **{item: ocp.args.JsonSave(value) for item, value in values.items()},
        }
        # Orbax fetches arrays implicitly, which the loop's transfer guard refuses on accelerators.
        with jax.transfer_guard("allow"):
            try:
                args = ocp.args.Composite(**items)
                self._manager.save(step, args=args, force=True)
            # `finish` tells it, as it does what a writing thread met.
            except Exception as error:
                self._failed = error

    def add_evaluation(self, step: int, row: Row) -> None:
        """Add its evaluation to a finished checkpoint, and remove those it makes superfluous.

        Does nothing on another process than the first.

        Raises:
            OSError: it cannot be written.
        """
        if not self._writes:
            return
        folder = self.folder / str(step) / "metrics"
        folder.mkdir(exist_ok=True)
        write_whole(folder / "metrics", json.dumps({**row, "checksum": checksum.of_json(row)}))
        self.reload()
        steps = self.steps()
        infos: Any = [SimpleNamespace(step=k, metrics=self._manager.metrics(k)) for k in steps]
        stays = self._kept.should_preserve(infos, context=policies.PreservationContext())
        for each, kept in zip(steps, stays, strict=True):
            if not kept:
                self._manager.delete(each)

    def remove(self, step: int) -> None:
        """Remove a finished checkpoint. Does nothing on another process than the first."""
        if self._writes:
            self._manager.delete(step)

    def finish(self) -> str:
        """Wait until the last save is on disk; if it failed, why, with nothing of it left."""
        error, self._failed = self._failed, None
        try:
            self._manager.wait_until_finished()
        # Orbax and TensorStore raise whatever their layers met: OSError, ValueError, ...
        except Exception as late:
            error = error or late
        if self._writes:
            self._remove_unfinished()
        return "" if error is None else reason(error)

    def _remove_unfinished(self) -> None:
        """Remove what failed saves left, while none is under way.

        Of a save that failed, a thread may still be writing: what it leaves goes the next time.
        """
        for rest in self.folder.glob(f"*{UNFINISHED}*"):
            shutil.rmtree(rest, ignore_errors=True)

    def wait(self) -> None:
        """Until everything saved is on disk.

        Raises:
            OSError: it could not be written.
        """
        if problem := self.finish():
            raise OSError(problem)

    def wait_until_visible(self, step: int | None) -> None:
        """Wait until this process sees a checkpoint that the first has written."""
        if self._writes or step is None:
            return
        limit = time.monotonic() + SEEN_S
        while step not in self.steps() and time.monotonic() < limit:
            time.sleep(0.05)
            self.reload()
