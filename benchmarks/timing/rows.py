"""The row of results every program writes, its JSON file and its table.

A row has all keys of SCHEMA; what a program does not measure is null. A program may add keys.
"""

import argparse
import functools
import importlib.metadata
import json
import math
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.timing.measure import Spread
from benchmarks.timing.roof import Roof
from jaxres.distributed.mesh import make_mesh
from jaxres.logs.summary import environment
from jaxres.runtime.errors import InputError
from jaxres.runtime.files import write_whole
from jaxres.runtime.paths import require_path

SCHEMA = (
    "benchmark",
    "case",
    "commit",
    "date",
    "command",
    "device",
    "device_count",
    "cpu",
    "versions",
    "xla_flags",
    "dtype",
    "batch_size",
    "image_size",
    "warmup",
    "repeats",
    "compile_s",
    "step_ms",
    "dispatch_ms",
    "images_per_s",
    "images_per_s_per_device",
    "gflop_per_image",
    "mfu",
    "roof",
    "roof_share",
    "peak_memory_mib",
    "peer",
    "ratio",
)
PEERS = ("torch", "keras", "tensorflow")  # their versions, where installed


def row(benchmark: str, case: str, **measured: Any) -> dict[str, Any]:
    """A row of the schema: the environment and what was measured; keys beyond the schema last.

    `roof` and `ratio` may be the tuples of `roof.py` and `measure.py`.

    Raises:
        ValueError: a number that is not finite.
    """
    known = {"benchmark": benchmark, "case": case, **made_by(), **measured}
    ordered = {key: known.pop(key, None) for key in SCHEMA} | known
    plain = {key: _plain(value) for key, value in ordered.items()}
    _require_finite(plain, case)
    return plain


def peer(name: str, version: str | None, images_per_s: float) -> dict[str, Any]:
    """The `peer` of a row."""
    return {"name": name, "version": version, "images_per_s": images_per_s}


def write(rows: Sequence[Mapping[str, Any]], path: Path | None) -> None:
    """Write `{"rows": [...]}`, whole or not at all; nothing without a path."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps({"rows": list(rows)}, indent=1, allow_nan=False) + "\n")


def show(title: str, rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """Print a table: `columns` names each one and the (dotted) key of the row it shows.

    Numbers have four digits; what is null is a dash.
    """
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, justify="left" if name == "case" else "right", no_wrap=True)
    for each in rows:
        table.add_row(*[_cell(_reach(each, key)) for key in columns.values()])
    # A file has no width of its own: the table takes what it needs.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """The arguments of a program `benchmarks.NAME`, with the `--json` that all have."""
    made = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=description, allow_abbrev=False
    )
    made.add_argument("--json", type=local_path, metavar="FILE", help='write {"rows": [...]} here')
    return made


def local_path(text: str) -> Path:
    """A path that is not an address, for argparse."""
    try:
        require_path("it", text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)


def names(text: str) -> list[str]:
    """A comma list of words, for argparse."""
    return [word for word in text.split(",") if word]


def numbers(text: str) -> list[int]:
    """A comma list of positive whole numbers, for argparse."""
    words = names(text)
    if not words or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise argparse.ArgumentTypeError(f"'{text}'; allowed: whole numbers above 0 with commas")
    return [int(word) for word in words]


def number(text: str) -> int:
    """A positive whole number, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}'; allowed: a whole number above 0")
    return int(text)


def above_0(text: str, unit: str = "a number") -> float:
    """A finite number above 0, for argparse; `unit` names it in the refusal."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}'; allowed: {unit} above 0")
    return value


@functools.cache
def made_by() -> dict[str, Any]:
    """Commit, date, command, device, processor, versions and XLA flags of this process."""
    known = environment(make_mesh(None))
    return {
        "commit": known["commit"],
        "date": known["date"],
        "command": command(),
        "device": known["devices"]["kind"],
        "device_count": known["devices"]["count"],
        "cpu": _cpu(),
        "versions": known["versions"] | _peer_versions(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def command() -> str:
    """The command line that started this program, from the root of the repository."""
    spec = sys.modules["__main__"].__spec__
    module = spec.name.removesuffix(".__main__") if spec else f"benchmarks.{Path(sys.argv[0]).stem}"
    return shlex.join(["python", "-m", module, *sys.argv[1:]])


def _peer_versions() -> dict[str, str]:
    found = {}
    for name in PEERS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _cpu() -> str:
    """Model, number of cores this process may use, and the widest vectors, where they are known."""
    model, vectors = platform.processor() or platform.machine(), ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        known = {}
        for line in info.read_text().splitlines():
            key, _, value = line.partition(":")
            known.setdefault(key.strip(), value.strip())
        model = known.get("model name") or model
        flags = known.get("flags", "").split()
        vectors = next((f", {flag}" for flag in ("avx512f", "avx2") if flag in flags), "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores{vectors}"


def _plain(value: Any) -> Any:
    return value._asdict() if isinstance(value, Roof | Spread) else value


def _require_finite(value: Any, case: str) -> None:
    if isinstance(value, dict):
        for item in value.values():
            _require_finite(item, case)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"'{case}' measured {value}; allowed: finite numbers")


def _reach(row: Mapping[str, Any], key: str) -> Any:
    value: Any = row
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
