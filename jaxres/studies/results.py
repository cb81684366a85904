"""The file of a study's results: the runs of every row, and which of them failed."""

import dataclasses
import json
import re
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxres.report import record
from jaxres.runtime.errors import InputError
from jaxres.runtime.files import locked, refusing, write_whole
from jaxres.studies.study import Row, Study

Found = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Results:
    """A study's profile in a JSON file, which several processes may add to.

    `stands(row, seed, run)` tells whether a run is what the row would make today. Runs that are not
    stay in the file, as `outdated`, and so do rows that the study no longer has, as `former`; they
    count again when they fit again. `on_update` is called with what there is after every change.
    """

    study: Study
    path: Path
    stands: Callable[[Row, int, record.Record], bool]
    on_update: Callable[[Found], None]

    def write(
        self,
        row: Row | None = None,
        seed: int = 0,
        *,
        run: record.Record | None = None,
        failed: Mapping[str, str] | None = None,
    ) -> Found:
        """Write the results again, with a run of a row, or with why and where it `failed`.

        Gives what there is then, with a place for every row of the study.
        A run takes the place of the one that the row had for the seed; a failure leaves that.

        Raises:
            InputError: the file is damaged or cannot be written.
        """
        with refusing(self.path), locked(self.path.parent):
            entries = _read(self.path)
            if row is not None:
                entry = entries.setdefault(row.name, {"runs": {}, "failed": {}})
                entry["failed"].pop(str(seed), None)
                if run is not None:
                    entry["runs"][str(seed)] = run
                if failed is not None:
                    entry["failed"][str(seed)] = dict(failed)
            found = self._arranged(entries)
            write_whole(self.path, _text(found))
            self.on_update(found)
        return found

    def _arranged(self, entries: Mapping[str, Any]) -> Found:
        study = self.study
        rows = {row.name: self._entry(row, entries.get(row.name, {})) for row in study.rows}
        seeds = max((len(entry["runs"]) for entry in rows.values()), default=0)
        command = f"jaxres reproduce {study.name} --profile {study.profile}"
        former = {
            name: entry
            for name, entry in entries.items()
            if name not in rows and (entry["runs"] or "outdated" in entry)
        }
        return {
            "study": study.name,
            "profile": study.profile,
            "title": study.title,
            "question": study.question,
            "answer": study.answered(
                {name: entry["accuracy"]["mean"] for name, entry in rows.items() if entry["runs"]}
            ),
            "about": study.about,
            "command": f"{command} --seeds {seeds}" if seeds > 1 else command,
            "rows": rows,
            **({"former": former} if former else {}),
        }

    def _entry(self, row: Row, there: Mapping[str, Any]) -> dict[str, Any]:
        every = there.get("outdated", {}) | there.get("runs", {})
        seeds = sorted(map(int, every))
        runs = {str(k): every[str(k)] for k in seeds if self.stands(row, k, every[str(k)])}
        outdated = {str(k): every[str(k)] for k in seeds if str(k) not in runs}
        return {
            "runs": runs,
            **({"outdated": outdated} if outdated else {}),
            "failed": dict(there.get("failed", {})),
            "accuracy": _spread(runs, "accuracy"),
            "loss": _spread(runs, "loss"),
            "title": row.title,
            "study": dict(row.study),
            "recipe": str(row.recipe),
        }


def _spread(runs: Mapping[str, record.Record], key: str) -> dict[str, float] | None:
    """Mean and spread of a score, None without runs."""
    values = [run["test"][key] for run in runs.values()]
    if not values:
        return None
    return {"mean": statistics.fmean(values), "min": min(values), "max": max(values)}


def _read(path: Path) -> dict[str, Any]:
    """The entries of all rows of a results file, by their names.

    Raises:
        InputError: it is damaged.
    """
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = {**content.get("former", {}), **content["rows"]}
        for entry in entries.values():
            for seed, run in [*entry["runs"].items(), *entry.get("outdated", {}).items()]:
                int(seed)
                record.require_whole(run)
            for failure in entry["failed"].values():
                str(failure["problem"] + failure["command"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"'{path}' is damaged ({error!r:.200})") from None
    return entries


def _text(found: Found) -> str:
    """JSON with rows of numbers on a line each."""
    text = json.dumps(found, indent=1)
    # Within a string JSON has no line breaks.
    return re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda each: re.sub(r"\n *", " ", each[0]), text) + "\n"
