"""Charts: the points are where they belong, and the colours follow the reader's scheme."""

import re
import xml.etree.ElementTree as ET

from jaxres.report import charts

SVG = "{http://www.w3.org/2000/svg}"


def texts(drawn: str) -> list[str]:
    return ["".join(each.itertext()) for each in ET.fromstring(drawn).iter(f"{SVG}text")]


def test_curves_have_names_axes_and_as_many_points_as_given() -> None:
    points = {"one": [(1.0, 0.5), (2.0, 0.7), (3.0, 0.8)], "two": [(1.0, 0.4), (2.0, 0.9)]}
    drawn = charts.curves(points, x="epoch", y="accuracy")
    assert {"one", "two", "epoch", "accuracy"} <= set(texts(drawn))
    # A marker for every point, and one for each name in the legend.
    assert len(re.findall(r"<use [^>]*xlink:href=\"#m", drawn)) >= 5 + 2


def test_no_two_of_many_lines_are_alike() -> None:
    drawn = charts.curves(
        {str(k): [(0.0, 1.0 * k), (1.0, 1.0 * k)] for k in range(15)}, x="epoch", y="loss"
    )
    styles = re.findall(r'<path d="[^"]*"[^>]*style="(fill: none[^"]*stroke-width: 2[^"]*)"', drawn)
    assert len(styles) == 2 * 15  # a line and its place in the legend
    assert len(set(styles)) == 15


def test_the_highest_point_is_drawn_highest() -> None:
    drawn = charts.curves({"one": [(1.0, 0.1), (2.0, 0.9), (3.0, 0.5)]}, x="epoch", y="loss")
    path = re.search(r'<path d="(M[^"]*)"[^>]*stroke: #0072b2', drawn)
    assert path is not None
    numbers = [float(each) for each in re.findall(r"[\d.]+", path[1])]
    low, high, middle = numbers[1::2]
    assert high < middle < low  # y grows downward in SVG


def test_every_word_has_the_readers_colour() -> None:
    # So narrow a logarithmic axis has numbers at its minor ticks.
    drawn = charts.curves({"one": [(1.0, 0.4), (2.0, 0.06)]}, x="epoch", y="loss", logarithmic=True)
    words = [
        style
        for tag in ("text", "tspan")
        for each in ET.fromstring(drawn).iter(f"{SVG}{tag}")
        if "font-size" in (style := each.get("style", ""))
    ]
    assert len(words) > 10
    assert all("fill: var(--ink)" in style for style in words)


def test_epochs_are_whole_numbers() -> None:
    drawn = charts.curves({"one": [(0.5, 0.4), (1.0, 0.3), (2.0, 0.6)]}, x="epoch", y="accuracy")
    assert {"1", "2"} <= set(texts(drawn))
    assert "1.5" not in texts(drawn)


def test_no_fixed_ink_is_left_and_the_drawing_is_the_same_each_time() -> None:
    points = {"one": [(1.0, 0.5), (2.0, 0.7)]}
    drawn = charts.curves(points, x="epoch", y="loss", logarithmic=True)
    assert charts.INK not in drawn
    assert "prefers-color-scheme:dark" in drawn
    assert drawn == charts.curves(points, x="epoch", y="loss", logarithmic=True)
