"""Every network of a study tested with every value of a setting: the cross matrix."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxres.config.data import INSTEAD
from jaxres.report import charts


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Accuracies, the mean over seeds."""

    setting: str  # `data.digit_side`
    values: tuple[str, ...]  # what it was tested with
    titles: tuple[str, ...]  # of the systems
    trained: tuple[str | None, ...]  # the value a system was trained with, None: several
    accuracy: Float[np.ndarray, "systems values"]

    def own(self) -> list[tuple[str, float]]:
        """The values that a network was trained with, with its accuracy at just that value."""
        return [
            (value, float(self.accuracy[self.trained.index(value), k]))
            for k, value in enumerate(self.values)
            if value in self.trained
        ]


def gather(systems: Sequence[Mapping[str, Any]]) -> Matrix | None:
    """The matrix of the systems that were swept as the first of them was; None if none was."""
    found: dict[str, tuple[str | None, list[float]]] = {}
    setting, values = "", ()
    for system in systems:
        sweeps = [run["sweep"] for run in system["runs"].values() if run.get("sweep")]
        asked = {(each["sweep"], tuple(row["value"] for row in each["results"])) for each in sweeps}
        if not found and len(asked) == 1:
            ((setting, values),) = asked
        if asked != {(setting, values)}:
            continue
        accuracy = np.mean([[row["accuracy"] for row in each["results"]] for each in sweeps], 0)
        settings = next(iter(system["runs"].values()))["settings"]
        found[system["title"]] = (_trained_with(setting, settings), accuracy.tolist())
    if not found:
        return None
    trained, accuracy = zip(*found.values(), strict=True)
    return Matrix(setting, values, tuple(found), trained, np.array(accuracy))


def _trained_with(setting: str, settings: Mapping[str, Any]) -> str | None:
    """The one value that a run's setting has."""
    value = settings[setting]
    if settings.get(INSTEAD.get(setting, "")) is not None:
        return None
    if isinstance(value, list):
        return str(value[0]) if len(value) == 1 else None
    return str(value)


def figures(matrix: Matrix) -> dict[str, tuple[str, str, str]]:
    """Name to SVG, text alternative and caption: the matrix, and curves if values are numbers."""
    best = matrix.accuracy.max(0)
    alt = "; ".join(
        f"tested at {value}: at most {high:.3f}"
        for value, high in zip(matrix.values, best, strict=True)
    )
    drawn = charts.heat_map(
        matrix.accuracy,
        rows=matrix.titles,
        columns=matrix.values,
        x=f"{matrix.setting} at the test",
    )
    caption = f"Test accuracy: a row is a network, a column the {matrix.setting} it is tested with"
    made = {"matrix": (drawn, f"Heat map of test accuracy. {alt}", caption)}
    lines = _lines(matrix)
    if lines:
        ends = "; ".join(
            f"{name}: {min(y for _, y in points):.3f} to {max(y for _, y in points):.3f}"
            for name, points in lines.items()
        )
        made["sweep"] = (
            charts.curves(
                lines, x=f"{matrix.setting} at the test", y="test accuracy", best="highest"
            ),
            f"Test accuracy by {matrix.setting}. {ends}",
            f"Test accuracy by {matrix.setting}: what a network knows of values it never saw"
            + charts.order(len(lines)),
        )
    return made


def _lines(matrix: Matrix) -> dict[str, list[tuple[float, float]]]:
    """Each network at its own value, the networks of several values, and the best of the others."""
    try:
        numbers = [float(value) for value in matrix.values]
    except ValueError:
        return {}
    own = [(float(value), accuracy) for value, accuracy in matrix.own()]
    lines = {"each network at the value it was trained with": own} if len(own) > 1 else {}
    single = [k for k, value in enumerate(matrix.trained) if value is not None]
    shown = [k for k, value in enumerate(matrix.trained) if value is None]
    if single:
        shown.append(max(single, key=lambda k: matrix.accuracy[k].mean()))
    for k in shown:
        lines[matrix.titles[k]] = list(zip(numbers, matrix.accuracy[k].tolist(), strict=True))
    return lines
