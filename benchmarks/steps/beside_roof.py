"""A traced step beside its least time: what each class of kernels took, and what it had to move."""

from collections import defaultdict
from typing import Any

from benchmarks.compiled.hlo import parse
from benchmarks.compiled.kernels import by_class as kernels_by_class
from benchmarks.compiled.kernels import kernels, totals
from benchmarks.hardware.chips import Chip
from benchmarks.steps.opclasses import Profile
from benchmarks.timing import rows

OUTSIDE = "not in the program"  # such as copies to the host
COLUMNS = {
    "case": "class",
    "kernels": "kernels",
    "ms": "ms",
    "least ms": "roof_ms",
    "share": "roof_share",
    "MB an image": "mb_per_image",
    "GB/s": "gb_per_s",
    "TFLOP/s": "tflops",
}


def by_class(
    profile: Profile, text: str, chip: Chip, images: int, *, steps_per_call: int = 1
) -> list[dict[str, Any]]:
    """A row for each class of kernels in a program (`Compiled.as_text()`), and one for all.

    `ms` is measured, per step of `images` images; `roof_ms` the least time on the chip as `aot`
    counts it; `roof_share` the second over the first; `gb_per_s` and `tflops` are the program's
    bytes and FLOP over the measured time. What was not traced has no `ms`.
    """
    found = kernels(parse(text))
    kinds = {kernel.name: kernel.kind for kernel in found}
    spent: dict[str, float] = defaultdict(float)
    for name, ms in profile.by_operation.items():
        spent[kinds.get(name, OUTSIDE)] += ms
    whole = sum(spent.values()) + profile.idle
    made = []
    for kind, each in {**kernels_by_class(found), OUTSIDE: [], "all": found}.items():
        ms = whole if kind == "all" else spent.get(kind)
        if not each and not ms:
            continue
        sums = totals(each, images * steps_per_call, chip.reach)
        roof_ms = sums["roof_ms"] / steps_per_call
        made.append(
            {
                "class": kind,
                "kernels": sums["kernels"] // steps_per_call,
                "ms": ms,
                "roof_ms": roof_ms,
                "roof_share": roof_ms / ms if ms else None,
                "mb_per_image": sums["bytes_per_image"] / 1e6,
                "gb_per_s": images * sums["bytes_per_image"] / ms / 1e6 if ms else None,
                "tflops": images * sums["flop_per_image"] / ms / 1e9 if ms else None,
            }
        )
    return made


def show(made: list[dict[str, Any]], title: str) -> None:
    """Print the table."""
    rows.show(f"{title}: classes beside their least time", made, COLUMNS)
