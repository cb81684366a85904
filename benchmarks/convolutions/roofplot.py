"""The roofline (Williams et al. 2009) of a model's convolutions, drawn as a PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks.timing.roof import Roof

Row = Mapping[str, Any]

# Okabe and Ito's palette, told apart by the colour-blind; each pass has a shape besides.
MARKS: dict[str, tuple[str, str]] = {
    "forward": ("o", "#0072B2"),
    "input gradient": ("s", "#E69F00"),
    "kernel gradient": ("^", "#009E73"),
}
ROOF_COLOUR = "#444444"
LARGEST, SMALLEST = 420.0, 16.0  # areas of markers in square points
LABELLED = 3


def draw(rows: Sequence[Row], roof: Roof, path: Path, *, title: str) -> None:
    """Draw `conv`'s rows, a marker each: its area is the share of the time of all of them."""
    figure = Figure(figsize=(8, 5.8), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log", **_limits(rows, roof))
    _draw_roofs(axes, roof)
    for which in MARKS:
        _draw_pass(axes, [row for row in rows if row["pass"] == which], which, _areas(rows))
    axes.set_xlabel("arithmetic intensity (FLOP per byte of least traffic)")
    axes.set_ylabel("speed (GFLOP/s)")
    axes.set_title(title, loc="left", fontsize=10)
    axes.grid(which="major", color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_locator(NullLocator())
    _draw_legends(figure, axes, rows)
    _label_slope(figure, axes, roof)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def _time_ms(row: Row) -> float:
    return row["occurrences"] * row["step_ms"]["p50"]


def _areas(rows: Sequence[Row]) -> dict[str, float]:
    most = max(_time_ms(row) for row in rows)
    return {row["case"]: max(SMALLEST, LARGEST * _time_ms(row) / most) for row in rows}


def _limits(rows: Sequence[Row], roof: Roof) -> dict[str, tuple[float, float]]:
    """The points and the corner of the roof, with room."""
    peak = roof.matmul_tflops * 1e3
    corner = peak / roof.copy_gbs
    across = [row["intensity"] for row in rows]
    up = [row["gflops"] for row in rows]
    return {
        "xlim": (min(*across, corner / 2) / 1.5, max(*across, corner) * 1.6),
        "ylim": (min(up) / 1.6, max(*up, peak) * 2),
    }


def _draw_roofs(axes: Axes, roof: Roof) -> None:
    peak = roof.matmul_tflops * 1e3
    left, right = axes.get_xlim()
    corner = peak / roof.copy_gbs
    across = np.array([left, corner, right])
    axes.plot(across, np.minimum(peak, across * roof.copy_gbs), color=ROOF_COLOUR, linewidth=1.5)
    axes.annotate(
        f"matrix product, {peak:,.0f} GFLOP/s",
        (right, peak),
        xytext=(-4, 4),
        textcoords="offset points",
        horizontalalignment="right",
        color=ROOF_COLOUR,
        fontsize=9,
    )


def _label_slope(figure: Figure, axes: Axes, roof: Roof) -> None:
    """Write along the slope, from where it enters the axes; its angle is that of the layout."""
    figure.draw_without_rendering()
    left, bottom = axes.get_xlim()[0], axes.get_ylim()[0]
    start = max(left, bottom / roof.copy_gbs)
    along = axes.transData.transform(
        [(across, across * roof.copy_gbs) for across in (start, 2 * start)]
    )
    angle = float(np.degrees(np.arctan2(*(along[1] - along[0])[::-1])))
    axes.annotate(
        f"copy, {roof.copy_gbs:,.0f} GB/s",
        (start, start * roof.copy_gbs),
        xytext=(8, 14),
        textcoords="offset points",
        rotation=angle,
        rotation_mode="anchor",
        color=ROOF_COLOUR,
        fontsize=9,
    )


def _draw_pass(axes: Axes, rows: Sequence[Row], which: str, areas: Mapping[str, float]) -> None:
    marker, colour = MARKS[which]
    axes.scatter(
        [row["intensity"] for row in rows],
        [row["gflops"] for row in rows],
        s=[areas[row["case"]] for row in rows],
        marker=marker,
        color=colour,
        alpha=0.7,
        edgecolors="white",
        linewidths=0.8,
        zorder=3,
    )


def _draw_legends(figure: Figure, axes: Axes, rows: Sequence[Row]) -> None:
    """Below the axes, where no marker can be: what the shapes are, and the numbered worst."""
    shapes = []
    for which, (marker, colour) in MARKS.items():
        spent = sum(_time_ms(row) for row in rows if row["pass"] == which)
        label = f"{which}, {spent:,.3g} ms a step"
        shapes.append(
            Line2D([], [], linestyle="", marker=marker, color=colour, markersize=8, label=label)
        )
    worst = sorted(rows, key=lambda row: -row["lost_ms"])[:LABELLED]
    numbered = []
    for number, row in enumerate(worst, 1):
        axes.annotate(
            str(number),
            (row["intensity"], row["gflops"]),
            horizontalalignment="center",
            verticalalignment="center",
            fontsize=9,
            fontweight="bold",
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
            zorder=4,
        )
        label = f"{row['occurrences']} x {row['case']}: {row['lost_ms']:,.3g} ms"
        numbered.append(
            Line2D([], [], linestyle="", marker=f"${number}$", color="black", label=label)
        )
    options = {"fontsize": 9, "title_fontsize": 9, "frameon": False, "alignment": "left"}
    figure.legend(
        handles=shapes, loc="outside lower left", title="area: share of the time", **options
    )
    figure.legend(
        handles=numbered, loc="outside lower right", title="most time lost to the roof", **options
    )
