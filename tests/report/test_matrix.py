"""The cross matrix: what was tested where, and who was trained on what."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from jaxres.report import charts, matrix


def system(title: str, settings: dict, *accuracies: list[float]) -> dict:
    """A study's row with a run for each list of accuracies at 8, 16 and 32 px."""
    runs = {}
    for seed, each in enumerate(accuracies):
        rows = [{"value": v, "accuracy": a} for v, a in zip(("8", "16", "32"), each, strict=True)]
        sweep = {"sweep": "data.digit_side", "results": rows, "command": "jaxres evaluate"}
        runs[str(seed)] = {"settings": settings, "sweep": sweep}
    return {"title": title, "runs": runs}


EIGHT = {"data.digit_side": [8], "data.digit_side_range": None}
LARGE = {"data.digit_side": [32], "data.digit_side_range": None}
BOTH = {"data.digit_side": [8, 32], "data.digit_side_range": None}
RANGE = {"data.digit_side": [8], "data.digit_side_range": [8, 32]}


@pytest.fixture
def made() -> matrix.Matrix:
    systems = [
        system("eight", EIGHT, [0.9, 0.4, 0.1], [0.7, 0.6, 0.3]),
        system("not run", EIGHT),
        system("large", LARGE, [0.2, 0.5, 0.99]),
        system("range", RANGE, [0.6, 0.7, 0.8]),
        system("both", BOTH, [0.5, 0.5, 0.5]),
    ]
    found = matrix.gather(systems)
    assert found is not None
    return found


def test_accuracies_are_means_over_seeds(made: matrix.Matrix) -> None:
    assert made.titles == ("eight", "large", "range", "both")
    assert made.values == ("8", "16", "32")
    np.testing.assert_allclose(made.accuracy[0], [0.8, 0.5, 0.2])
    np.testing.assert_allclose(made.accuracy[1], [0.2, 0.5, 0.99])


def test_a_network_of_several_values_has_none_of_its_own(made: matrix.Matrix) -> None:
    assert made.trained == ("8", "32", None, None)
    assert made.own() == [("8", pytest.approx(0.8)), ("32", pytest.approx(0.99))]


def test_figures_show_every_cell_and_the_lines_worth_comparing(made: matrix.Matrix) -> None:
    drawn = matrix.figures(made)
    texts = {"".join(each.itertext()).strip() for each in ET.fromstring(drawn["matrix"][0]).iter()}
    assert {"80", "50", "20", "99", "60", "70", "eight", "range", "8", "32"} <= texts
    assert "tested at 32: at most 0.990" in drawn["matrix"][1]
    assert "range: 0.600 to 0.800" in drawn["sweep"][1]
    assert "large: 0.200 to 0.990" in drawn["sweep"][1]  # the best of those of one value
    assert "eight:" not in drawn["sweep"][1]


def test_values_that_are_no_numbers_have_no_curves() -> None:
    given = system("one", {"data.digit_side": "center"}, [0.1, 0.2, 0.3])
    for row, value in zip(given["runs"]["0"]["sweep"]["results"], "abc", strict=True):
        row["value"] = value
    found = matrix.gather([given])
    assert found is not None
    assert [*matrix.figures(found)] == ["matrix"]


def test_without_a_sweep_there_is_no_matrix() -> None:
    assert matrix.gather([system("one", EIGHT)]) is None


def test_numbers_can_be_read_on_every_shade() -> None:
    drawn = charts.heat_map(
        np.array([[0.0, 0.3, 0.59, 0.61, 1.0]]), rows="a", columns="bcdef", x="x"
    )
    cells = [
        each.get("style", "")
        for each in ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")
        if "".join(each.itertext()).strip() in {"0", "30", "59", "61", "100"}
    ]
    assert ["ffffff" in style for style in cells] == [True, True, True, False, False]
