"""Weak and strong scaling on paper: a chip's step, and the least time to exchange its gradients.

A prediction, never a measurement. The step of one device is taken from rows of `aot` (its roof: a
least time) or of `step` (measured); between their batch sizes it is drawn as a line. The exchange
is one all-reduce over links of published bandwidth. Two bounds are given: `exposed`, the step and
then the exchange, as JaxRes is compiled today, and `overlapped`, the longer of the two.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.hardware import chips
from benchmarks.hardware.links import LINKS, all_reduce
from benchmarks.timing import rows
from jaxres.models.count import count
from jaxres.runtime.errors import InputError
from jaxres.runtime.screen import say

Row = dict[str, Any]

# ResNet-50 in MLPerf Training 4.0, MXNet on DGX H100: devices, batch of each, images/s of each.
PUBLISHED = ((8, 400, 7160.0), (64, 50, 4911.0), (2528, 16, 2720.0))
COLUMNS = {
    "case": "case",
    "devices": "device_count",
    "batch each": "batch_per_device",
    "step ms": "step_ms",
    "links ms": "exchange_ms.links",
    "network": "exchange_ms.network",
    "latency": "exchange_ms.latency",
    "exposed img/s": "images_per_s_per_device",
    "efficiency": "efficiency",
    "overlapped": "overlapped_images_per_s_per_device",
    "efficiency ": "overlapped_efficiency",
    "all img/s": "images_per_s",
}
CHECKED = {
    "case": "case",
    "devices": "device_count",
    "batch each": "batch_per_device",
    "published img/s": "published_images_per_s",
    "exposed": "images_per_s_per_device",
    "over published": "over_published",
    "overlapped": "overlapped_images_per_s_per_device",
    "over published ": "overlapped_over_published",
}
WORK = ("benchmark", "recipe", "model", "image_size", "dtype")  # what the rows must have in common


class Steps(NamedTuple):
    """A device's milliseconds of a step by its batch, and the bytes that each device adds up."""

    chip: str
    ms: Mapping[int, float]
    exchanged: float
    measured: bool

    def at(self, batch: float) -> float:
        """Of a batch between those known on the line between them, beyond them on the last line."""
        known = sorted(self.ms)
        pairs = list(itertools.pairwise(known))
        low, high = next((pair for pair in pairs if batch <= pair[1]), pairs[-1])
        slope = (self.ms[high] - self.ms[low]) / (high - low)
        return max(self.ms[low] + slope * (batch - low), 0.0)


def main(argv: Sequence[str] | None = None) -> int:
    """Status 0; 2 for what cannot be asked for."""
    args = _parser().parse_args(argv)
    try:
        if not 0 < args.reached <= 1:
            raise InputError(f"--reached is {args.reached}; allowed: above 0, to 1")
        steps = read(args.steps, args.chip)
        if steps.measured and args.reached != 1:
            raise InputError(
                "--reached is a share of least times, as of aot; --steps has measured steps"
            )
        made = predict(steps, args)
        checked = check(steps) if args.published else []
    except InputError as error:
        say(f"error: {error}")
        return 2
    kind = "measured steps" if steps.measured else f"least times over {args.reached:g}"
    rows.show(f"{steps.chip}, {kind}, {steps.exchanged / 1e6:.1f} MB exchanged", made, COLUMNS)
    if checked:
        of = "the speed measured" if steps.measured else "the roof"
        told = f"beside MLPerf 4.0, {checked[0]['reached']:.2f} of {of} as on 8 devices"
        rows.show(told, checked, CHECKED)
    print("Predictions from a model; nothing here was measured on so many devices.")
    rows.write([*made, *checked], args.json)
    return 0


def _parser() -> argparse.ArgumentParser:
    made = rows.parser("pods", __doc__)
    add = made.add_argument
    add(
        "--steps",
        type=rows.local_path,
        required=True,
        metavar="FILE",
        help="rows of aot or step for at least two batches of a device",
    )
    add("--chip", choices=tuple(LINKS), help="whose rows, where FILE has several chips'")
    add("--devices", type=rows.numbers, default=[8, 64, 256, 2048], help="(8,64,256,2048)")
    add("--batch", type=rows.numbers, default=[256], help="of a device, weak scaling (256)")
    add("--global-batch", type=rows.numbers, default=[], help="of all devices, strong scaling")
    add(
        "--reached",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="the share of the roof that one device was seen to reach (default: 1, least times)",
    )
    add("--published", action="store_true", help="set H100s beside MLPerf's published results")
    return made


def read(path: Path, chip: str | None = None) -> Steps:
    """The steps of a chip from a file of rows.

    Raises:
        InputError: the file is none, or has no two batches of one known chip.
    """
    try:
        found = json.loads(path.read_text())["rows"]
        each = [(chips.NAMES.get(row["device"]), *_step(row)) for row in found if _tells(row)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"--steps '{path}' holds no rows of aot or step: {error}") from None
    known = sorted({name for name, _, _, _ in each if name in LINKS})
    if chip is None and len(known) > 1:
        raise InputError(
            f"--steps '{path}' has several chips; --chip names one: {', '.join(known)}"
        )
    name = chip or next(iter(known), None)
    ms = {batch: taken for found, batch, taken, _ in each if found == name}
    if name is None or len(ms) < 2:
        raise InputError(
            f"--steps '{path}' has {len(ms)} batches of {name or 'a known chip'}; needed: two or "
            f"more, of one of {', '.join(LINKS)}"
        )
    exchanged = max(size for found, _, _, size in each if found == name)
    if not exchanged:
        raise InputError(
            f"--steps '{path}' does not say what is exchanged; needed: one row of several devices"
        )
    of = [row for row in found if _tells(row) and chips.NAMES.get(row["device"]) == name]
    works = {tuple(row.get(key) for key in WORK) for row in of}
    if len(works) > 1:
        told = "; ".join(sorted(" ".join(str(part) for part in work if part) for work in works))
        raise InputError(f"--steps '{path}' has several steps, needed: one: {told}")
    return Steps(name, ms, exchanged, of[0]["benchmark"] == "step")


def _tells(row: Row) -> bool:
    """Whether a row is of the step as it is, and of one that fits."""
    return row.get("variant") is None and "refused" not in row


def _step(row: Row) -> tuple[int, float, float]:
    """A device's batch, its milliseconds, and the bytes it exchanges."""
    per_device = row["batch_size"] // row["device_count"]
    if row["benchmark"] == "step":
        network = count(row["model"], image_size=row["image_size"], classes=row["classes"])
        return per_device, row["step_ms"]["p50"], 4.0 * network.parameters  # float32 gradients
    sent = row.get("collectives", {}).get("all-reduce", {}).get("bytes", 0)
    return per_device, row["roof_ms"], float(sent)


def predict(steps: Steps, args: argparse.Namespace) -> list[Row]:
    """A row for each number of devices, weak scaling first.

    Raises:
        InputError: a global batch does not divide over the devices.
    """
    cases = [(f"weak, {each} each", many, each) for each in args.batch for many in args.devices]
    for whole in args.global_batch:
        for many in args.devices:
            if whole % many:
                raise InputError(f"--global-batch {whole} does not divide over {many} devices")
            cases.append((f"strong, {whole:,} in all", many, whole // many))
    return [_row(steps, case, many, each, args.reached) for case, many, each in cases]


def _row(steps: Steps, case: str, devices: int, batch: int, reached: float) -> Row:
    step_ms = steps.at(batch) / reached
    exchange = all_reduce(LINKS[steps.chip], devices, steps.exchanged)
    in_turn, overlapped = step_ms + exchange.total, max(step_ms, exchange.total)
    alone = batch / step_ms
    return rows.row(
        "pods",
        case,
        chip=steps.chip,
        device_count=devices,
        batch_size=batch * devices,
        batch_per_device=batch,
        reached=reached,
        measured_steps=steps.measured,
        extrapolated=not min(steps.ms) <= batch <= max(steps.ms),
        step_ms=step_ms,
        exchange_ms=exchange._asdict(),
        exchanged_bytes=steps.exchanged,
        images_per_s=1e3 * batch * devices / in_turn,
        images_per_s_per_device=1e3 * batch / in_turn,
        overlapped_images_per_s_per_device=1e3 * batch / overlapped,
        efficiency=batch / in_turn / alone,
        overlapped_efficiency=batch / overlapped / alone,
    )


def check(steps: Steps) -> list[Row]:
    """The model beside published figures: all reach the share of our speed that the first reaches.

    Raises:
        InputError: the steps are not an H100's.
    """
    if steps.chip != "h100":
        raise InputError(f"--published is of h100; --steps has {steps.chip}")
    devices, batch, published = PUBLISHED[0]
    exchanged = all_reduce(LINKS[steps.chip], devices, steps.exchanged).total
    reached = steps.at(batch) / (1e3 * batch / published - exchanged)
    made = []
    for devices, batch, published in PUBLISHED:
        row = _row(steps, "MLPerf 4.0, MXNet", devices, batch, reached)
        made.append(
            row
            | {
                "published_images_per_s": published,
                "over_published": row["images_per_s_per_device"] / published,
                "overlapped_over_published": row["overlapped_images_per_s_per_device"] / published,
            }
        )
    return made


if __name__ == "__main__":
    sys.exit(main())
