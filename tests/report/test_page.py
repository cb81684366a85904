"""The page: its numbers are those of the runs, and it needs nothing but itself."""

import html
import json
import pathlib
import re
import shutil

import numpy as np
import pytest

from jaxres.cli.main import main
from jaxres.explain.sheet import write_png
from jaxres.report import page, record
from jaxres.runtime.errors import InputError


@pytest.fixture
def written(runs: list[pathlib.Path], tmp_path: pathlib.Path) -> str:
    page.write_runs([record.read(each) for each in runs], tmp_path / "report.html")
    return (tmp_path / "report.html").read_text()


def test_the_numbers_are_those_of_the_runs(runs: list[pathlib.Path], written: str) -> None:
    for run in runs:
        summary = json.loads((run / "summary.json").read_text())
        assert f"<td>{100 * summary['test']['accuracy']:.2f} %</td>" in written
        assert f"<td>{summary['test']['loss']:.4f}</td>" in written
        assert f"<td>{summary['parameters']:,}</td>" in written
        assert f"<td>{100 * summary['data_wait_share']:.1f} %</td>" in written
        for split in ("train", "validation", "test"):
            given = summary["data"][split]
            told = f"{split} {given['examples']:,} (checksum <code>{given['checksum']}</code>)"
            assert told in written
        for one in summary["test"]["per_class"]:
            assert f"<td>{one['f1']:.4f}</td><td>{one['support']}</td>" in written
        for row in summary["test"]["confusion"]:
            cells = "".join(rf'<td style="--share:[\d.]+">{count}</td>' for count in row)
            assert re.search(cells, written)
        assert html.escape(summary["command"], quote=False) in html.unescape(written)


def test_a_partial_data_set_is_told(runs: list[pathlib.Path], tmp_path: pathlib.Path) -> None:
    run = record.read(runs[0])
    run["data"]["partial"] = "without data_batch_2"
    page.write_runs([run], tmp_path / "report.html")
    assert (
        "<strong>partial</strong>: without data_batch_2" in (tmp_path / "report.html").read_text()
    )


def test_it_tells_what_differs_and_nothing_else(written: str) -> None:
    table = written[written.index('id="settings"') :]
    keys = re.findall(r"<code>([a-z_]+\.[a-z_0-9]+)</code>", table.replace("<wbr>", ""))
    assert keys == ["optim.learning_rate"]


def test_it_refers_to_nothing_outside(written: str) -> None:
    links = re.findall(r'(?:src|href)="([^"]*)"', written)
    assert links
    assert all(link.startswith("data:") for link in links)
    assert "url(" not in written.replace("url(#", "")
    assert "@import" not in written


def test_every_image_has_words(written: str) -> None:
    images = re.findall(r"<img [^>]*>", written)
    assert len(images) == 3
    for each in images:
        assert re.search(r'alt="[^"]{20,}"', each)


def test_images_of_a_study_are_shown_unless_they_must_not_be(
    runs: list[pathlib.Path], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    run_dir = pathlib.Path(shutil.copytree(runs[0], tmp_path / "run"))
    image = np.zeros((20, 30, 3), np.uint8)
    write_png(run_dir / "mistakes.png", image)
    run = record.read(run_dir)
    score = {"mean": 0.5, "min": 0.5, "max": 0.5}
    row = {"title": "one", "runs": {"0": run}, "failed": {}, "study": {}}
    found = {"title": "S0", "question": "Why?", "profile": "mini", "about": "small"}
    found |= {"command": "jaxres", "rows": {"one": {**row, "accuracy": score, "loss": score}}}
    path = tmp_path / "mini.html"
    for images in (True, False):
        page.write_study(found, path, images=images)
        assert ("data:image/webp" in path.read_text()) == images
    (run_dir / "mistakes.png").write_bytes(b"no picture")
    page.write_study(found, path)
    assert "data:image/webp" not in path.read_text()
    assert "mistakes.png' is not an image" in capsys.readouterr().err


def test_runs_are_named_from_the_folder_they_share(
    runs: list[pathlib.Path], tmp_path: pathlib.Path
) -> None:
    run = record.read(runs[0])
    for given, shown in (
        (["/a/long/place/one", "/a/long/place/two/seed0"], ["one", "two/seed0"]),
        (["one", "/elsewhere/two"], ["one", "/elsewhere/two"]),
        (["/a/long/place/one"], ["one"]),
    ):
        page.write_runs([run | {"run_dir": each} for each in given], tmp_path / "report.html")
        text = (tmp_path / "report.html").read_text()
        assert re.findall(r"<summary>(.*?)</summary>", text) == shown
        assert f"Made from {', '.join(given)}." in text


def test_names_are_escaped(runs: list[pathlib.Path], tmp_path: pathlib.Path) -> None:
    made = record.read(runs[0]) | {"run_dir": "<script>alert(1)</script>"}
    page.write_runs([made], tmp_path / "report.html")
    assert "<script" not in (tmp_path / "report.html").read_text()


def test_a_run_that_goes_on_is_shown_without_results(
    runs: list[pathlib.Path], tmp_path: pathlib.Path
) -> None:
    keys = ("run_dir", "settings", "train", "validation")
    going_on = {key: record.read(runs[0])[key] for key in keys}
    page.write_runs([going_on, record.read(runs[1])], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "not finished" in text
    assert "not run" not in text


def test_a_study_shows_its_own_numbers_failures_and_what_was_not_run(
    runs: list[pathlib.Path], tmp_path: pathlib.Path
) -> None:
    run = record.read(runs[0])
    accuracy = run["test"]["accuracy"]
    rows = {
        "done": {
            "title": "row that is done",
            "runs": {"0": run, "1": run},
            "failed": {"2": {"problem": "out of memory", "command": "jaxres train y"}},
            "outdated": {"3": run},
            "study": {"accuracy": 0.5991, "loss": 3.9619},
            "accuracy": {"mean": accuracy, "min": accuracy, "max": accuracy},
            "loss": {"mean": 1.0, "min": 1.0, "max": 1.0},
        },
        "open": {
            "title": "row not begun",
            "runs": {},
            "failed": {},
            "study": {"validation_accuracy": 0.9},
        },
        "bad": {
            "title": "row that failed",
            "runs": {},
            "failed": {"0": {"problem": "no such data", "command": "jaxres train x"}},
            "study": {},
        },
    }
    for row in rows.values():
        row.setdefault("accuracy", None)
        row.setdefault("loss", None)
    found = {
        "title": "S0",
        "question": "Why?",
        "profile": "mini",
        "about": "small",
        "command": "jaxres reproduce s0",
        "rows": rows,
    }
    page.write_study(found, tmp_path / "mini.html")
    text = (tmp_path / "mini.html").read_text()
    assert "<td>59.91 %</td><td>3.9619</td>" in text
    assert "study: loss" in text
    assert "<td>90.00 % (validation)</td>" in text
    assert "<td>2, 1 failed</td>" in text
    assert "not counted: row that is done (seed 3)." in " ".join(text.split())
    assert "not as equals" in text
    assert "not run" in text
    assert "no such data" in text
    assert "jaxres train x" in text


def test_the_command(
    runs: list[pathlib.Path], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "r.html"
    assert main(["report", *map(str, runs), "-o", str(out)]) == 0
    assert capsys.readouterr().out == f"written: {out}\n"
    assert out.read_text().startswith("<!doctype html>")
    assert main(["report"]) == 2
    assert main(["report", str(tmp_path)]) == 2


def test_a_page_that_cannot_be_written(runs: list[pathlib.Path], tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        page.write_runs([record.read(runs[0])], tmp_path / "file" / "report.html")
