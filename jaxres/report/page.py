"""One self-contained HTML page of runs: tables, curves, images, and where each number is from."""

import base64
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np

from jaxres.report import charts, matrix, standing
from jaxres.report.record import Record
from jaxres.runtime.files import refusing, write_whole
from jaxres.runtime.screen import say

# Images that `jaxres show` may have left in a run directory, with what they are.
SHEETS = {
    "mistakes.png": "Test images that the network got wrong, most confident first",
    "attention.png": "Where the network looked",
}
Chart = tuple[str, str, str]  # SVG, text alternative, caption
HIDDEN = {"train.seed", "train.compile_cache", "data.data_dir"}  # of the settings that differ


def write_study(found: Mapping[str, Any], path: Path, *, images: bool = True) -> None:
    """Write the page of a study's results, as `studies.reproduce` gathers them.

    With `images` it shows those of SHEETS that are in the run directories. Its charts are
    files of their own as well: `mini_validation_accuracy.svg` and so on.

    Raises:
        InputError: it cannot be written.
    """
    systems = [{"name": name, **row} for name, row in found["rows"].items()]
    drawn = _write(
        path,
        images=images,
        title=found["title"],
        caption="Mean over seeds; a single seed tells no difference of a few tenths of a per cent.",
        question=found["question"],
        answer=found.get("answer", ""),
        profile=found["profile"],
        about=found["about"],
        systems=systems,
        source=f"Made by {found['command']}; every number is in {path.with_suffix('.json').name}.",
    )
    with refusing(path):
        for name, (svg, _, _) in drawn.items():
            write_whole(path.with_name(f"{path.stem}_{name}.svg"), svg)


def write_runs(records: Sequence[Record], path: Path) -> None:
    """Write the page of single runs, as `record.read` reads them.

    Raises:
        InputError: it cannot be written.
    """
    titles = _titles([run["run_dir"] for run in records])
    systems = [
        {
            "name": run["run_dir"],
            "title": title,
            "runs": {str(run["settings"]["train.seed"]): run},
            "failed": {},
            "study": {},
            **{
                key: {"mean": run["test"][key]} if "test" in run else None
                for key in ("accuracy", "loss")
            },
        }
        for run, title in zip(records, titles, strict=True)
    ]
    names = ", ".join(run["run_dir"] for run in records)
    _write(
        path,
        title="JaxRes runs",
        caption="A single run tells no difference of a few tenths of a per cent.",
        systems=systems,
        source=f"Made from {names}.",
    )


def _titles(run_dirs: Sequence[str]) -> list[str]:
    """The run directories' paths from the folder on that they share."""
    parts = [Path(each).parts for each in run_dirs]
    levels = zip(*(each[:-1] for each in parts), strict=False)
    shared = len(list(itertools.takewhile(lambda names: len(set(names)) == 1, levels)))
    return [str(Path(*each[shared:])) for each in parts]


def _write(
    path: Path, *, systems: Sequence[dict[str, Any]], images: bool = True, **words: Any
) -> dict[str, Chart]:
    """Write the page; gives its charts."""
    crossed = matrix.gather(systems)
    drawn = (matrix.figures(crossed) if crossed else {}) | _curves(systems)
    for system in systems:
        system["pictures"] = _images(system) if images else []
    page = _template().render(
        systems=systems,
        has_study=any(system["study"] for system in systems),
        has_study_loss=any("loss" in system["study"] for system in systems),
        charts=[
            {"source": _data("image/svg+xml", svg.encode()), "alt": alt, "caption": caption}
            for svg, alt, caption in drawn.values()
        ],
        matrix=crossed,
        costs=[_cost(system) for system in systems if _first(system).get("test")],
        differences=_differences(systems),
        versions=_versions(systems),
        **words,
    )
    with refusing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, page)
    return drawn


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxres.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    for optional in ("question", "answer", "profile", "about"):
        environment.globals[optional] = ""
    environment.globals["count_of_seeds"] = standing.seeds
    return environment.get_template("page.html.j2")


def _first(system: Mapping[str, Any]) -> Record:
    """The run that stands for a system where one has to: the first seed's."""
    return next(iter(system["runs"].values()), {})


def _curves(systems: Sequence[Mapping[str, Any]]) -> dict[str, Chart]:
    """Validation accuracy and loss by epoch, and the training loss, of the first seeds."""
    made: dict[str, Chart] = {}
    for split, key, label in (
        ("validation", "accuracy", "validation accuracy"),
        ("validation", "loss", "validation loss"),
        ("train", "loss", "training loss"),
    ):
        points = {
            system["title"]: [(row["epoch"], row[key]) for row in _first(system)[split]]
            for system in systems
            if _first(system).get(split)
        }
        if not points:
            continue
        ends = "; ".join(f"{title} ends at {each[-1][1]:.4f}" for title, each in points.items())
        made[label.replace(" ", "_")] = (
            charts.curves(
                points,
                x="epoch",
                y=label,
                best="lowest" if key == "loss" else "highest",
                logarithmic=key == "loss",
            ),
            f"{label} by epoch: {ends}",
            f"{label.capitalize()} by epoch, first seed of each{charts.order(len(points))}",
        )
    return made


def _images(system: Mapping[str, Any]) -> list[dict[str, str]]:
    if not _first(system):
        return []
    made = []
    for name, about in SHEETS.items():
        path = Path(_first(system)["run_dir"]) / name
        if not path.is_file():
            continue
        image = cv2.imread(str(path))
        if image is None:
            say(f"warning: '{path}' is not an image, so it is left out; delete it to redraw it")
            continue
        source = _data("image/webp", _smaller(image))
        made.append({"source": source, "alt": f"{about}: {system['title']}", "caption": about})
    return made


def _smaller(image: np.ndarray) -> bytes:
    """An image as WebP, a third of its PNG."""
    return cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, 85])[1].tobytes()


def _cost(system: Mapping[str, Any]) -> dict[str, Any]:
    run = _first(system)
    devices = run["devices"]
    return {
        "title": system["title"],
        "devices": f"{devices['count']} x {devices['kind']}",
        **{
            key: run.get(key)
            for key in ("model", "parameters", "gflop", "images_per_s", "data_wait_share", "wall_s")
        },
    }


def _differences(systems: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The settings that are not the same in all systems."""
    settings = [run["settings"] for run in map(_first, systems) if run]
    keys = sorted({key for each in settings for key in each} - HIDDEN)
    by_key = {key: [_shown(each.get(key)) for each in settings] for key in keys}
    return {key: values for key, values in by_key.items() if len(set(values)) > 1}


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "none" if value is None or value == "" else str(value)


def _versions(systems: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the runs were made with: a line for every combination there is."""
    found = {
        ", ".join(f"{name} {number}" for name, number in run["versions"].items()): None
        for system in systems
        for run in system["runs"].values()
        if "versions" in run
    }
    return list(found)


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
