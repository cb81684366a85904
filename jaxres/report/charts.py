"""Charts as SVG pictures that follow the reader's light or dark scheme."""

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

INK = "#010203"  # stands for the reader's text colour
SCHEMES = (
    "<style>svg{--ink:#1b1f24}@media(prefers-color-scheme:dark){svg{--ink:#e6e8eb}}"
    "text{font-family:system-ui,sans-serif}</style>"
)
# Of Okabe and Ito, those that stand out on white and on black; told apart by dashes too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8c7a00", "#56a0d3")
DASHES = ("-", "--", "-.", ":", (0, (6, 2, 1, 2, 1, 2)))  # five, so that 30 lines differ
# Light is high; the same order in grey and for those who see no red or green.
SHADES, DARK_BELOW = "cividis", 0.6

Curve = Sequence[tuple[float, float]]


def curves(by_name: Mapping[str, Curve], *, x: str, y: str, logarithmic: bool = False) -> str:
    """Lines of (x, y) points by name, as SVG; `x` and `y` name the axes, y may be `logarithmic`."""
    figure, axes = _axes()
    for k, (name, points) in enumerate(by_name.items()):
        axes.plot(
            [point[0] for point in points],
            [point[1] for point in points],
            color=COLOURS[k % len(COLOURS)],
            linestyle=DASHES[k % len(DASHES)],
            marker="o" if len(points) < 30 else None,
            markersize=4,
            linewidth=2,
            label=name,
        )
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if logarithmic:
        axes.set_yscale("log")
    axes.grid(color=INK, alpha=0.15)
    axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    return _svg(figure)


def heat_map(
    values: Float[np.ndarray, "rows columns"],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    x: str,
) -> str:
    """Shares, 0 to 1, as shaded and numbered cells (per cent), as SVG; `x` names the columns."""
    figure, axes = _axes(height=1.2 + 0.3 * len(rows))
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
    axes.set_yticks(np.arange(len(rows)) + 0.5, rows)
    axes.tick_params(length=0)
    axes.set_xlabel(x)
    axes.invert_yaxis()
    return _svg(figure)


def _axes(height: float = 4.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.2, height), layout="constrained")
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.tick_params(which="both", colors=INK)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
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
