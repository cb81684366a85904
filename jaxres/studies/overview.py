"""The results of all studies on one page of Markdown."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxres.report import standing
from jaxres.runtime.files import locked, refusing, write_whole
from jaxres.studies import study
from jaxres.studies.study import Study

NAME = "studies.md"
HEAD = """# Results of the studies

Written by `jaxres reproduce`. Every number is in the JSON file named above its table, with the
command, the settings, the versions and the commit it was made with; the HTML page has the curves,
the scores by class, the confusion matrices and, where they may be passed on, the images.
Accuracies are those of the test split, the mean over seeds with their range; a single seed tells no
difference of a few tenths of a per cent. A mini profile is for two CPU cores: the study's own
numbers, of its full size, are shown beside it for direction, not as equals.
"""


def write(results: Path, folder: Path | None = None) -> Path:
    """Write `studies.md` in the folder of results, of every study of `folder`; gives its path.

    Raises:
        InputError: a study is not made as it should be, or the page cannot be written.
    """
    path = results / NAME
    with refusing(path), locked(results):
        lines = [HEAD]
        for name in study.names(folder):
            profiles = study.read_all(name, folder)
            for first in profiles[:1]:
                lines += [f"## {first.title}", "", first.question, ""]
            for each in profiles:
                lines += _profile(each, results)
        write_whole(path, "\n".join(lines).rstrip() + "\n")
    return path


def _profile(chosen: Study, results: Path) -> Iterator[str]:
    head = f"**{chosen.profile}**: {chosen.about}"
    place = f"{chosen.name}/{chosen.profile}"
    path = results / f"{place}.json"
    if not path.is_file():
        yield from (f"{head}. Not run.", "")
        return
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows, answer = content["rows"], content.get("answer")
        table = [_row(rows[row.name]) for row in chosen.rows if row.name in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        yield from (f"{head}. `{place}.json` is damaged ({error!r:.100}).", "")
        return
    if answer:
        yield from (f"**Answer, {chosen.profile}.** {answer}", "")
    yield from (f"{head} ([page]({place}.html), [JSON]({place}.json))", "")
    yield "| system | accuracy | range | loss | seeds | study's accuracy |"
    yield "|---|---:|---:|---:|---:|---:|"
    yield from table
    yield ""
    charts = [results / f"{place}_{chart}.svg" for chart in ("matrix", "validation_accuracy")]
    drawn = [each for each in charts if each.is_file()]
    if drawn:
        alt = drawn[0].stem.partition("_")[2].replace("_", " ").capitalize()
        yield from (f"![{alt}]({chosen.name}/{drawn[0].name})", "")


def _row(row: dict[str, Any]) -> str:
    accuracy, spread, loss = row["accuracy"], "", ""
    if accuracy:
        spread = f"{accuracy['min']:.4f} to {accuracy['max']:.4f}"
        spread = spread if len(row["runs"]) > 1 else "single seed"
        loss = f"{row['loss']['mean']:.4f}"
    cells = [row["title"], standing.mean(row), spread, loss]
    return f"| {' | '.join((*cells, standing.seeds(row), standing.theirs(row)))} |"
