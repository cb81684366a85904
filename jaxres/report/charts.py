"""Charts as SVG images that follow the reader's light or dark scheme, wide enough for a phone."""

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Literal

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from sklearn.isotonic import isotonic_regression

INK = "#010203"  # stands for the reader's text colour
SCHEMES = (
    "<style>svg{--ink:#1b1f24}@media(prefers-color-scheme:dark){svg{--ink:#e6e8eb}}"
    "text{font-family:system-ui,sans-serif}</style>"
)
# Okabe and Ito's that reach a contrast of 3 on white and on black, the last blue darkened for it.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", INK, "#3f97d3")
DASHES = ("-", "--", "-.", ":", (0, (6, 2, 1, 2, 1, 2)))  # five, so that 30 lines differ
# Light is high; the same order in grey and for those who see no red or green.
SHADES, DARK_BELOW = "cividis", 0.6
MOST = 12  # lines of a chart
WIDTH, FONT = 4.6, 10  # inches and points: 11 pixels on a phone 390 wide
NAME, LABEL = 46, 20  # characters of a line in the legend, and beside a row of cells

Curve = Sequence[tuple[float, float]]
Best = Literal["highest", "lowest"]


def curves(
    by_name: Mapping[str, Curve], *, x: str, y: str, best: Best, logarithmic: bool = False
) -> str:
    """Lines of (x, y) points by name, as SVG; see `draw_curves`."""
    return _svg(draw_curves(by_name, x=x, y=y, best=best, logarithmic=logarithmic))


def draw_curves(
    by_name: Mapping[str, Curve], *, x: str, y: str, best: Best, logarithmic: bool = False
) -> Figure:
    """Draw lines of (x, y) points by name, numbered from the one that ends best.

    That one is thicker and in front. Of more than MOST lines those that end best are drawn.
    The numbers stand right of the axes and the names below them, where no line can be.

    Args:
        by_name: The points of each line, at least one.
        x: Name of the axis.
        y: Name of the axis.
        best: Which end of a line is best; one that is not a number is worst.
        logarithmic: Of the y axis.
    """
    shown = _ranked(by_name, best)[:MOST]
    names = [textwrap.fill(name, NAME, subsequent_indent="     ") for name in shown]
    if len(names) > 1:
        names = [f"{k}  {name}" for k, name in enumerate(names, 1)]
    rows = sum(name.count("\n") + 1 for name in names)
    figure, axes = _axes(height=2.9 + 0.2 * rows)
    styles = {name: k for k, name in enumerate(by_name)}  # the same in every chart of a page
    for k, name in enumerate(shown):
        points = by_name[name]
        axes.plot(
            [point[0] for point in points],
            [point[1] for point in points],
            color=COLOURS[styles[name] % len(COLOURS)],
            linestyle=DASHES[styles[name] % len(DASHES)],
            marker="o" if len(points) < 30 else None,
            markersize=5 if k == 0 else 3,
            linewidth=3 if k == 0 else 1.5,
            zorder=3 - k / MOST,
            label=names[k],
        )
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if logarithmic:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        wide = high > 5 * low
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if wide else (1, 1.5, 2, 3, 4, 6)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(color=INK, alpha=0.15)
    figure.legend(
        loc="outside lower left",
        frameon=False,
        labelcolor=INK,
        fontsize=FONT,
        handlelength=3,
        labelspacing=0.3,
        borderaxespad=0,
    )
    if len(names) > 1:
        _number_ends(figure, axes, best)
    return figure


def order(count: int) -> str:
    """What a caption says of the order of `count` lines, and of those that are not drawn."""
    if count < 2:
        return ""
    left_out = f"; the first {MOST} of {count} are drawn, {count - MOST} left out"
    return ". Numbered from the one that ends best" + (left_out if count > MOST else "")


def _ranked(by_name: Mapping[str, Curve], best: Best) -> list[str]:
    def key(name: str) -> tuple[bool, float]:
        end = by_name[name][-1][1]
        return not math.isfinite(end), -end if best == "highest" else end

    return sorted(by_name, key=key)


def _number_ends(figure: Figure, axes: Axes, best: Best) -> None:
    """Write 1, 2, ... right of the axes, as near to the lines' ends as their height lets them."""
    lines = axes.get_lines()
    ends = np.array([np.asarray(line.get_xydata())[-1] for line in lines])
    numbers = [
        axes.text(
            1.05, 0.5, str(k), transform=axes.transAxes, color=INK, fontsize=FONT, va="center"
        )
        for k in range(1, len(lines) + 1)
    ]
    numbers[0].set_fontweight("bold")
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # that has made room for numbers at any height
    _, bottom, _, height = axes.bbox.bounds
    gap = min(1.15 * FONT * figure.dpi / 72 / height, 1 / len(ends))
    up = (axes.transData.transform(ends)[:, 1] - bottom) / height
    places = np.clip(np.nan_to_num(up, nan=float(best == "lowest")), 0, 1)
    upward = slice(None, None, -1 if best == "highest" else 1)
    places[upward] = _apart(places[upward], gap)
    for number, place, line, end in zip(numbers, places, lines, ends, strict=True):
        number.set_y(place)
        if not np.isfinite(end).all():
            continue
        stroke = {"color": line.get_color(), "linestyle": ":", "linewidth": 0.8}
        axes.annotate(
            "",
            tuple(end),
            xytext=(1.04, place),
            textcoords="axes fraction",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "shrinkA": 0, "shrinkB": 0, **stroke},
        )


def _apart(upward: Float[np.ndarray, " n"], gap: float) -> Float[np.ndarray, " n"]:
    """Move labels of height `gap` as little as keeps them apart, in order and within 0 to 1.

    With the labels below each taken away only the order is asked: an isotonic regression.
    """
    below = gap * np.arange(len(upward))
    return below + isotonic_regression(upward - below, y_min=gap / 2, y_max=1 - gap / 2 - below[-1])


def heat_map(
    values: Float[np.ndarray, "rows columns"],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    x: str,
) -> str:
    """Shares, 0 to 1, as shaded and numbered cells (per cent), as SVG; `x` names the columns."""
    labels = [textwrap.fill(row, LABEL) for row in rows]
    most = max(label.count("\n") + 1 for label in labels)
    figure, axes = _axes(height=0.8 + max(0.25, 0.14 * most + 0.06) * len(rows))
    axes.pcolormesh(values, cmap=SHADES, vmin=0, vmax=1, edgecolors="none")
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        axes.text(
            column + 0.5,
            row + 0.5,
            f"{100 * value:.0f}",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if value < DARK_BELOW else "black",
        )
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns)
    axes.set_yticks(np.arange(len(rows)) + 0.5, labels)
    axes.tick_params(length=0, labelsize=9)
    axes.set_xlabel(x)
    axes.invert_yaxis()
    return _svg(figure)


def _axes(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.tick_params(which="both", colors=INK, labelsize=FONT)
    axes.xaxis.label.set(color=INK, fontsize=FONT)
    axes.yaxis.label.set(color=INK, fontsize=FONT)
    for side in axes.spines.values():
        side.set_color(INK)
    return figure, axes


def _svg(figure: Figure) -> str:
    into = io.StringIO()
    # Text stays text; the ids are the same in every run.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "jaxres"}):
        figure.savefig(into, format="svg", transparent=True, metadata={"Date": None})
    drawn = into.getvalue()
    drawn = drawn[drawn.index("<svg") :].replace(INK, "var(--ink)")
    head, _, rest = drawn.partition(">")
    return f"{head}>{SCHEMES}{rest}"
