"""What a run knows of itself beside its state: a checkpoint's item `progress`."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Row = dict[str, Any]

LATER_TOTALS = ("evaluate_s", "checkpoint_s")  # that older checkpoints lack
TOTALS = ("pictures", "seconds", "wait_s", "compile_s", *LATER_TOTALS)
SCORE = "mean_average_precision"  # of multi-label data, by which evaluations are compared
BEST = ("step", "epoch", "accuracy", "loss")  # what is kept of the best evaluation


@dataclasses.dataclass
class Progress:
    """The evaluations so far and the best of them, and what `summary.json` tells at the end.

    `iterator` is the state of the training batches; `totals` are sums over all processes that
    worked on the run; `compile_cache` tells how the last of them came by its training step;
    `rollbacks` are steps whose state was given up, and the checkpoints taken instead; `data` are
    the `ComposedDataset.fingerprint` of each split, `classes` the names of the labels,
    `multi_label` whether an image may be of several, and `devices` how many there were.
    """

    iterator: dict[str, int] = dataclasses.field(default_factory=dict)
    history: list[Row] = dataclasses.field(default_factory=list)
    best: Row | None = None
    totals: dict[str, float] = dataclasses.field(default_factory=lambda: dict.fromkeys(TOTALS, 0.0))
    compile_cache: str | None = None
    rollbacks: list[dict[str, int]] = dataclasses.field(default_factory=list)
    data: dict[str, Row] = dataclasses.field(default_factory=dict)
    devices: int | None = None
    classes: list[str] = dataclasses.field(default_factory=list)
    multi_label: bool = False

    @contextlib.contextmanager
    def timed(self, total: str) -> Iterator[None]:
        """Add the seconds of a block to one of the totals."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.totals[total] += time.perf_counter() - began

    def note(self, row: Row) -> None:
        """Take in an evaluation."""
        self.history.append(row)
        if self.best is None or rank(row) > rank(self.best):
            self.best = _as_best(row)

    def has_evaluated(self, step: int) -> bool:
        """Whether the weights after a step were evaluated."""
        return any(row["step"] == step for row in self.history)

    def keep_best_of(self, steps: Iterable[int]) -> None:
        """Only the evaluations after these steps can be the best from now on."""
        there = set(steps)
        rows = [row for row in self.history if row["step"] in there]
        self.best = _as_best(max(rows, key=rank)) if rows else None

    def differing_data(self, now: Mapping[str, Row]) -> str:
        """Which splits' data are others now than they were, in words; older runs do not know."""
        return "; ".join(
            f"{split} has {describe(fingerprint)}, had {describe(self.data[split])}"
            for split, fingerprint in now.items()
            if self.data.get(split, fingerprint) != fingerprint
        )

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any], step: int) -> "Progress":
        """The progress of a run after a step.

        Raises:
            ValueError: it is something else.
        """
        made = {key: value.get(key, default) for key, default in cls().to_json().items()}
        if isinstance(made["totals"], dict):
            made["totals"] = dict.fromkeys(LATER_TOTALS, 0.0) | made["totals"]
        for key, is_right in {
            "iterator": lambda each: each == {"next_step": step},
            "history": lambda each: isinstance(each, list) and all(map(is_row, each)),
            "best": lambda each: each is None or is_row(each),
            "totals": lambda each: _is_numbers(each, TOTALS),
            "compile_cache": lambda each: each is None or isinstance(each, str),
            "rollbacks": lambda each: isinstance(each, list) and all(map(_is_rollback, each)),
            "devices": lambda each: each is None or (type(each) is int and each > 0),
            "classes": lambda each: isinstance(each, list) and all(type(x) is str for x in each),
            "multi_label": lambda each: isinstance(each, bool),
            "data": lambda each: (
                isinstance(each, dict) and all(map(_is_fingerprint, each.values()))
            ),
        }.items():
            if not is_right(made[key]):
                raise ValueError(f"its progress has '{key}' {made[key]!r:.80}")
        return cls(**made)


def rank(metrics: Mapping[str, Any]) -> tuple[float, float, int]:
    """What makes a checkpoint better than another: its score, a smaller loss, then a later step."""
    return score(metrics), -metrics["loss"], metrics.get("step", 0)  # old runs lack the step


def score(metrics: Mapping[str, Any]) -> float:
    """Accuracy, or of multi-label data mean average precision."""
    return metrics.get(SCORE, metrics["accuracy"])


def _as_best(row: Row) -> Row:
    return {key: row[key] for key in (*BEST, SCORE) if key in row}


def is_row(value: Any) -> bool:
    """Whether it tells of an evaluation."""
    scored = isinstance(value, dict) and SCORE in value
    return _is_numbers(value, (*BEST, SCORE) if scored else BEST) and type(value["step"]) is int


def _is_rollback(value: Any) -> bool:
    return _is_numbers(value, ("step", "to"))


def _is_fingerprint(value: Any) -> bool:
    return _is_numbers(value, ("examples",)) and isinstance(value.get("checksum"), str)


def describe(fingerprint: Mapping[str, Any]) -> str:
    """What a `ComposedDataset.fingerprint` says, in words."""
    return f"{fingerprint['examples']:,} examples (checksum {fingerprint['checksum']})"


def _is_numbers(value: Any, keys: Iterable[str]) -> bool:
    """Whether it maps these keys, and maybe others, to finite numbers."""
    return isinstance(value, dict) and all(
        type(value.get(key)) in (int, float) and math.isfinite(value[key]) for key in keys
    )
