"""Reading a run's checkpoints: each item is compared with its checksum, damage is one sentence.

The items are those that `manager` writes. Evaluation reads `config` and the weights only.
"""

import contextlib
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxres.checkpoint import checksum
from jaxres.checkpoint.damage import reason, require_regular_files
from jaxres.checkpoint.progress import Progress, Row, is_row, rank
from jaxres.checkpoint.shapes import abstract_like, require_shapes
from jaxres.config import as_made
from jaxres.runtime.errors import InputError

PyTree = Any
WEIGHTS = ("params", "stats")
MAX_DIGITS = 20  # of a step
# A header may state any shape. Weights that were trained take hardly less space on disk than in
# memory, those that are all zero a thousandth and less.
MOST_PACKED, SMALL_BYTES = 1000, 64 << 20


class CheckpointReader:
    """The finished checkpoints of one run, by step."""

    def __init__(self, folder: Path):
        """Open them.

        Raises:
            InputError: a file that Orbax reads of every step is damaged.
        """
        self.folder = folder.absolute()
        # It reads metrics and metadata of every step, and passes on whatever their layers met.
        try:
            require_regular_files(self.folder)
            self._manager = ocp.CheckpointManager(self.folder, options=self._options())
        except Exception as error:
            raise InputError(
                f"the checkpoints in '{self.folder}' cannot be opened ({reason(error)}): "
                "remove the step that is damaged, or that folder"
            ) from error

    def _options(self) -> ocp.CheckpointManagerOptions:
        return ocp.CheckpointManagerOptions(
            read_only=True, save_interval_steps=0, multiprocessing_options=by_itself()
        )

    def steps(self) -> list[int]:
        """Steps with a finished checkpoint, ascending."""
        return sorted(self._manager.all_steps())

    def latest(self) -> int | None:
        """The newest step with a finished checkpoint."""
        return max(self.steps(), default=None)

    def reload(self) -> None:
        """See what has been written and removed since this was opened."""
        self._manager.reload()

    def find(self, which: str) -> int:
        """The step that `best`, `last` or a number names.

        Raises:
            InputError: there is no such checkpoint.
        """
        steps = self.steps()
        if not steps:
            raise InputError(f"no finished checkpoint in '{self.folder}'")
        if which == "last":
            return steps[-1]
        if which == "best":
            best = self._best(steps[-1])
            if best not in steps:
                raise InputError(
                    f"the best checkpoint, step {best}, is gone from '{self.folder}'; "
                    f"allowed: last, {', '.join(map(str, steps))}"
                )
            return best
        if which.isdecimal() and len(which) < MAX_DIGITS and int(which) in steps:
            return int(which)
        listed = ", ".join(map(str, steps))
        raise InputError(
            f"no checkpoint '{which}' in '{self.folder}'; allowed: best, last, {listed}"
        )

    def read(self, step: int, item: str) -> dict[str, Any]:
        """The JSON item `progress` or `config`.

        Raises:
            InputError: the checkpoint is damaged.
        """
        value = self._restore(step, {item: ocp.args.JsonRestore()})[item]
        with self._reporting_damage(step):
            if not isinstance(value, dict):
                raise ValueError(f"its item '{item}' has no names and values")
        return value

    def read_progress(self, step: int) -> Progress:
        """What the run knew of itself after a step.

        Raises:
            InputError: the checkpoint is damaged, or none of a training run.
        """
        value = self.read(step, "progress")
        with self._reporting_damage(step):
            progress = Progress.from_json(value, step)
            if (row := self._rating(step)) is not None:
                progress.note(row)
            return progress

    def read_config(self, step: int) -> dict[str, dict[str, Any]]:
        """The settings that the checkpoint was made with, as sections of keys.

        Raises:
            InputError: the checkpoint is damaged, or they are not settings.
        """
        config = self.read(step, "config")
        with self._reporting_damage(step):
            data = config.get("data")
            if not all(isinstance(keys, dict) for keys in config.values()) or not data:
                raise ValueError("its settings are not sections of keys, with one for data")
            for key in ("mean", "std"):
                if key not in data or not _is_triple(data[key]):
                    raise ValueError(f"its data.{key} is {data.get(key)!r:.80}")
        return as_made(config)

    def restore(self, step: int, abstract: PyTree) -> PyTree:
        """The whole training state; `abstract` gives shapes, types and shardings.

        Raises:
            InputError: the checkpoint is damaged or of another network or optimiser.
        """
        items = {
            "variables": ocp.args.StandardRestore({key: abstract[key] for key in WEIGHTS}),
            "optimizer": ocp.args.StandardRestore(optimizer_item(abstract)),
        }
        if "ema" in abstract:
            items["ema"] = ocp.args.StandardRestore(abstract["ema"])
        restored = self._restore(step, items)
        state = {**restored["variables"], **restored["optimizer"]}
        return {**state, "ema": restored["ema"]} if "ema" in abstract else state

    def restore_weights(self, step: int, abstract: PyTree) -> PyTree:
        """The `params` and `stats` to evaluate: the averaged ones where the run averages.

        Raises:
            InputError: the checkpoint is damaged or of another network.
        """
        item, metadata = self._weights_item(step)
        require_shapes(self.folder / str(step), metadata, abstract)
        return self._restore(step, {item: ocp.args.StandardRestore(abstract)})[item]

    def read_weights(self, step: int, sharding: jax.sharding.Sharding) -> PyTree:
        """The `params` and `stats` to evaluate, whatever network they are of.

        Raises:
            InputError: the checkpoint is damaged.
        """
        item, metadata = self._weights_item(step)
        abstract = abstract_like(metadata, sharding)
        return self._restore(step, {item: ocp.args.StandardRestore(abstract)})[item]

    def is_removed(self, step: int) -> bool:
        """Whether a checkpoint is no longer there, or someone is removing it."""
        folder = self.folder / str(step)
        before = -1
        while folder.is_dir() and (left := sum(1 for _ in folder.rglob("*"))) != before:
            before = left
            time.sleep(0.02)
        return not folder.is_dir()

    def close(self) -> None:
        """Wait and release."""
        self._manager.close()

    def _weights_item(self, step: int) -> tuple[str, PyTree]:
        """Name and tree of shapes of the item that holds the weights to evaluate."""
        item = "ema" if (self.folder / str(step) / "ema").is_dir() else "variables"
        with self._reporting_damage(step), _reader() as reader:
            folder = self.folder / str(step) / item
            tree = reader.metadata(folder).item_metadata.tree
            needed = sum(
                math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)
            )
            stored = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            if needed > max(MOST_PACKED * stored, SMALL_BYTES):
                raise ValueError(f"its weights need {needed} bytes, it has {stored}")
            return item, tree

    def _best(self, latest: int) -> int:
        """The best step, as the latest checkpoint says; the latest itself where none was ranked."""
        progress = self.read(latest, "progress")
        with self._reporting_damage(latest):
            rated = [row for row in (progress["best"], self._rating(latest)) if row]
            step = max(rated, key=rank)["step"] if rated else latest
            if type(step) is not int:
                raise ValueError(f"its best step is {step!r:.80}")
        return step

    def _rating(self, step: int) -> Row | None:
        """The evaluation that `rate` added; the `metrics` of older checkpoints are in `progress`.

        Raises:
            ValueError: it is damaged.
        """
        try:
            row = json.loads((self.folder / str(step) / "metrics" / "metrics").read_bytes())
        except FileNotFoundError:
            return None
        if isinstance(row, dict) and row.keys() == {"accuracy", "loss"}:
            return None
        given = row.pop("checksum", None) if isinstance(row, dict) else None
        if given != checksum.of_json(row) or not is_row(row) or row["step"] != step:
            raise ValueError(f"its metrics are {row!r:.80}")
        return row

    def _restore(self, step: int, items: dict[str, Any]) -> dict[str, Any]:
        """Read items and compare them with their checksums."""
        sums = {"checksums": ocp.args.JsonRestore()}
        with self._reporting_damage(step):
            args = ocp.args.Composite(**items, **sums)
            restored = dict(self._manager.restore(step, args=args).items())
            expected = restored.pop("checksums")
            for item, value in restored.items():
                is_json = isinstance(items[item], ocp.args.JsonRestore)
                found = checksum.of_json(value) if is_json else checksum.of_arrays(value)
                if found != expected[item]:
                    raise ValueError(f"the checksum of '{item}' is {found}, not {expected[item]}")
        return restored

    @contextlib.contextmanager
    def _reporting_damage(self, step: int) -> Iterator[None]:
        """Turn whatever fails while a checkpoint is read into one sentence with the remedy."""
        try:
            with jax.transfer_guard("allow"):
                yield
        # Orbax and TensorStore raise whatever their layers met: OSError, KeyError, ValueError, ...
        except Exception as error:
            others = [str(other) for other in self.steps() if other != step]
            detail = reason(error)
            remedy = (
                f"remove that folder to train on from step {others[-1]}, or evaluate that step"
                if others
                else "there is no other checkpoint"
            )
            raise InputError(
                f"checkpoint '{self.folder / str(step)}' is damaged ({detail}); {remedy}"
            ) from error


def open_run(run_dir: Path, *, key: str = "") -> CheckpointReader:
    """The checkpoints of a run directory, for reading; `key` is the setting that names it.

    Raises:
        InputError: it is not a run directory.
    """
    folder = run_dir / "checkpoints"
    if not folder.is_dir():
        named = f"{key} is '{run_dir}', which" if key else f"'{run_dir}'"
        raise InputError(f"{named} is not a run directory: it has no folder 'checkpoints'")
    return CheckpointReader(folder)


def optimizer_item(state: PyTree) -> PyTree:
    """What a checkpoint keeps of the optimiser: its state, and the step."""
    return {"step": state["step"], "opt_state": state["opt_state"]}


def by_itself() -> ocp.options.MultiprocessingOptions:
    """For Orbax not to wait for other processes."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    index = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=index,
        active_processes={index},
        barrier_sync_key_prefix=f"jaxres_{index}",
    )


def _is_triple(value: Any) -> bool:
    """Whether it is None, or three finite numbers."""
    numbers = value if isinstance(value, list) else ()
    finite = [type(number) in (int, float) and math.isfinite(number) for number in numbers]
    return value is None or finite == [True] * 3


def _reader() -> ocp.StandardCheckpointer:
    return ocp.StandardCheckpointer(multiprocessing_options=by_itself())
