import json

import pytest

from benchmarks.timing import rows
from benchmarks.timing.measure import Spread
from benchmarks.timing.roof import Roof


def test_row_has_every_key_of_the_schema_and_plain_values():
    row = rows.row("step", "case", roof=Roof(0.2, 50.0), ratio=Spread(1.0, 0.9, 1.1, 7), extra=1)
    assert tuple(row)[: len(rows.SCHEMA)] == rows.SCHEMA
    assert row["roof"] == {"matmul_tflops": 0.2, "copy_gbs": 50.0}
    assert row["ratio"] == {"median": 1.0, "min": 0.9, "max": 1.1, "pairs": 7}
    assert row["extra"] == 1
    assert row["peer"] is None
    assert row["versions"]["jax"]
    json.dumps(row, allow_nan=False)


def test_numbers_that_are_none_are_refused():
    with pytest.raises(ValueError, match="measured nan"):
        rows.row("step", "case", step_ms={"p50": float("nan")})


def test_file_holds_the_rows(tmp_path):
    rows.write([rows.row("step", "case")], tmp_path / "new" / "rows.json")
    held = json.loads((tmp_path / "new" / "rows.json").read_text())
    assert [row["case"] for row in held["rows"]] == ["case"]


def test_table_shows_nested_values_and_dashes(capsys):
    row = rows.row("step", "small", step_ms={"p50": 12.3456}, images_per_s=12345.6)
    rows.show(
        "Steps",
        [row],
        {"case": "case", "ms": "step_ms.p50", "img/s": "images_per_s", "peer": "peer.name"},
    )
    printed = capsys.readouterr().out
    assert "12.35" in printed
    assert "12,346" in printed
    assert " - " in printed


@pytest.mark.parametrize("text", ["", "0", "4,-1", "a"])
def test_comma_lists_of_numbers_refuse(text, capsys):
    parser = rows.parser("step", None)
    parser.add_argument("--batch-size", type=rows.numbers)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--batch-size", text])
    assert ended.value.code == 2
    assert "allowed: whole numbers above 0" in capsys.readouterr().err
