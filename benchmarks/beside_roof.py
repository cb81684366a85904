"""A traced step beside its least time: what each class of kernels took, and what it had to move."""

from collections import defaultdict
from typing import Any

from benchmarks import rows
from benchmarks.chips import Chip
from benchmarks.hlo import parse
from benchmarks.kernels import CLASSES, kernels
from benchmarks.opclasses import Profile

OUTSIDE = "not in the program"  # such as copies to the host
COLUMNS = {
    "case": "class",
    "kernels": "kernels",
    "ms": "ms",
    "least ms": "roof_ms",
    "share": "roof_share",
    "MB a picture": "mb_per_image",
    "GB/s": "gb_per_s",
    "TFLOP/s": "tflops",
}


def by_class(
    profile: Profile, text: str, chip: Chip, images: int, *, steps_per_call: int = 1
) -> list[dict[str, Any]]:
    """A row for each class of kernels in a program (`Compiled.as_text()`), and one for all.

    `ms` is measured, per step of `images` pictures; `roof_ms` the least time on the chip as `aot`
    counts it; `roof_share` the second over the first; `gb_per_s` and `tflops` are the program's
    bytes and FLOP over the measured time. What was not traced has no `ms`.
    """
    found = kernels(parse(text))
    kinds = {kernel.name: kernel.kind for kernel in found}
    spent: dict[str, float] = defaultdict(float)
    for name, ms in profile.by_operation.items():
        spent[kinds.get(name, OUTSIDE)] += ms
    counted = [(kind, [each for each in found if each.kind == kind]) for kind in CLASSES]
    whole = sum(spent.values()) + profile.idle
    made = []
    for kind, each in [*counted, (OUTSIDE, []), ("all", found)]:
        ms = whole if kind == "all" else spent.get(kind)
        if not each and not ms:
            continue
        moved = sum(kernel.bytes for kernel in each) / steps_per_call
        flop = sum(kernel.times * kernel.flop for kernel in each) / steps_per_call
        roof_ms = 1e3 * sum(kernel.seconds(**chip.reach) for kernel in each) / steps_per_call
        made.append(
            {
                "class": kind,
                "kernels": sum(kernel.times for kernel in each) // steps_per_call,
                "ms": ms,
                "roof_ms": roof_ms,
                "roof_share": roof_ms / ms if ms else None,
                "mb_per_image": moved / images / 1e6,
                "gb_per_s": moved / ms / 1e6 if ms else None,
                "tflops": flop / ms / 1e9 if ms else None,
            }
        )
    return made


def show(made: list[dict[str, Any]], title: str) -> None:
    """Print the table."""
    rows.show(f"{title}: classes beside their least time", made, COLUMNS)
