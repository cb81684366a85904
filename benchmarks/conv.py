"""Every distinct convolution of a model: its three passes, each against the roof of the device.

A pass (forward, gradient of the input, gradient of the kernel) is compiled and timed alone, its
arrays resident. Its least time is the longer one of its arithmetic at the fastest matrix product
and its traffic (images, kernel and result, each once) at the fastest copy, both measured in the
same run. Time lost is what lies above that, times how often the model has the convolution.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.convolutions import passes, roofplot
from benchmarks.convolutions.bound import bytes_of, flop_of
from benchmarks.convolutions.passes import CHOSEN, PASSES
from benchmarks.convolutions.traced import convolutions
from benchmarks.timing import measure, roof, rows
from benchmarks.timing.workload import DTYPES
from jaxres.ops.conv import LOWERINGS, Geometry
from jaxres.runtime.errors import InputError, unknown_name
from jaxres.runtime.memory import keep_freed_memory
from jaxres.runtime.screen import say

COLUMNS = {
    "case": "case",
    "lowering": "lowering",
    "times": "occurrences",
    "ms": "step_ms.p50",
    "GFLOP/s": "gflops",
    "FLOP/byte": "intensity",
    "of roof": "roof_share",
    "lost ms": "lost_ms",
}
COMPARED = {"x xla": "ratio.median", "min": "ratio.min", "max": "ratio.max", "chosen": "chosen"}
TOTALS = {
    "case": "case",
    "lowering": "lowering",
    "times": "occurrences",
    "ms": "step_ms.p50",
    "GFLOP/s": "gflops",
    "of roof": "roof_share",
    "lost ms": "lost_ms",
}


def main(words: Sequence[str] | None = None) -> int:
    """Status 0; 2 for what cannot be asked for."""
    args = _parser().parse_args(words)
    keep_freed_memory()  # as a training run does: a pass's temporaries are not faulted in anew
    try:
        asked = _asked(args.lowering)
        if args.repeats < measure.MIN_REPEATS:
            raise InputError(f"--repeats is {args.repeats}; allowed: {measure.MIN_REPEATS} or more")
        found = convolutions(args.model, args.image_size, args.batch_size, args.dtype)
        if not found:
            raise InputError(f"--model is {args.model}; allowed: models with convolutions")
    except InputError as error:
        say(f"error: {error}")
        return 2
    before = roof.measured(args.dtype)
    taken = list(_measure(found, asked, args.repeats))
    roof.measured.cache_clear()
    # Somebody else's work lowers a roof; hardly twice.
    top = roof.Roof(*map(max, before, roof.measured(args.dtype)))
    measured = [_row(args, each, top, compared=len(asked) > 1) for each in taken]
    totals = summed(args.model, asked, measured, top)
    measured.sort(key=lambda row: _worst_first(row, measured))
    rows.write([*measured, *totals], args.json)
    if args.plot:
        shown = [row for row in measured if row["chosen"]] or measured
        roofplot.draw(shown, top, args.plot, title=_title(args, measured))
    _print(args, measured, totals, top)
    return 0


def _parser() -> argparse.ArgumentParser:
    made = rows.parser("conv", __doc__)
    add = made.add_argument
    add("--model", default="resnet50")
    add("--image-size", type=rows.number, default=224, help="side in pixels")
    add("--batch-size", type=rows.number, default=16)
    add("--dtype", choices=DTYPES, default="float32")
    add(
        "--lowering",
        type=rows.names,
        default=[CHOSEN],
        help=f"{CHOSEN} (the default), all, or any of {', '.join(LOWERINGS)}, with commas",
    )
    add("--repeats", type=rows.number, default=7, help=f"samples of at least {passes.SAMPLE_S} s")
    add("--plot", type=rows.local_path, metavar="FILE", help="draw the roofline as a PNG")
    return made


def _asked(names: Sequence[str]) -> list[str]:
    """Lowerings to measure; several are compared with xla and with the chosen one.

    Raises:
        InputError: a name is not known.
    """
    allowed = [CHOSEN, "all", *LOWERINGS]
    for name in names:
        if name not in allowed:
            raise unknown_name("lowering in --lowering", name, allowed)
    if not names:
        raise InputError(f"--lowering names nothing; allowed: {', '.join(allowed)}")
    if "all" in names:
        return list(LOWERINGS)
    return list(names) if len(names) == 1 else list(dict.fromkeys(["xla", *names, CHOSEN]))


def case_of(geometry: Geometry) -> str:
    """A convolution in a few words: kernel, stride, channels > features, groups, image."""
    (kernel_y, kernel_x), (stride_y, stride_x) = geometry.kernel, geometry.stride
    height, width = geometry.size
    words = [
        f"{kernel_y}x{kernel_x}",
        f"s{stride_y}" if stride_y == stride_x else f"s{stride_y}x{stride_x}",
        f"{geometry.channels}>{geometry.features}",
        f"g{geometry.groups}" if geometry.groups > 1 else "",
        f"@{height}" if height == width else f"@{height}x{width}",
        _padding_of(geometry),
    ]
    return " ".join(word for word in words if word)


def _padding_of(geometry: Geometry) -> str:
    """Nothing if the kernel's centre meets every pixel, as is usual."""
    usual = tuple(((extent - 1) // 2,) * 2 for extent in geometry.kernel)
    (top, bottom), (left, right) = geometry.padding
    return "" if geometry.padding == usual else f"p{top},{bottom},{left},{right}"


class Taken(NamedTuple):
    """One pass of a convolution that occurs so often, by one lowering and by xla, if measured."""

    geometry: Geometry
    occurrences: int
    which: str
    lowering: str
    timed: passes.Timed
    xla: passes.Timed | None


def _measure(found: Mapping[Geometry, int], asked: Sequence[str], repeats: int) -> Iterator[Taken]:
    """Every convolution, pass and lowering, said on the way."""
    first = next(iter(found))
    for number, (geometry, occurrences) in enumerate(found.items(), 1):
        say(f"[{number}/{len(found)}] {case_of(geometry)}")
        for which in PASSES:
            if geometry == first and which == "input gradient":
                continue  # nobody asks for the gradient of the images
            lowerings = passes.applicable(geometry, which, asked)
            timed, full = passes.measured(geometry, which, lowerings, repeats=repeats)
            for name in full:
                say(f"{case_of(geometry)} {which}: {name} does not fit in memory; left out")
            for name, each in timed.items():
                yield Taken(geometry, occurrences, which, name, each, timed.get("xla"))


def _row(
    args: argparse.Namespace, taken: Taken, top: roof.Roof, *, compared: bool
) -> dict[str, Any]:
    geometry, timed = taken.geometry, taken.timed
    flop, moved = flop_of(geometry), sum(bytes_of(geometry))
    seconds, least_s = statistics.median(timed.seconds), top.seconds(flop, moved)
    ratio = None
    if compared and taken.xla:
        ratio = measure.ratio(timed.seconds, taken.xla.seconds)
    return rows.row(
        "conv",
        f"{case_of(geometry)} {taken.which}",
        dtype=args.dtype,
        batch_size=geometry.batch,
        image_size=args.image_size,
        warmup=2,
        repeats=args.repeats,
        compile_s=timed.compile_s,
        step_ms=measure.percentiles_ms(timed.seconds),
        roof=top,
        roof_share=least_s / seconds,
        ratio=ratio,
        model=args.model,
        **{"pass": taken.which},
        lowering=taken.lowering,
        chosen=taken.lowering == passes.chosen(geometry, taken.which),
        occurrences=taken.occurrences,
        flop=flop,
        bytes=moved,
        gflops=flop / seconds / 1e9,
        intensity=flop / moved,
        least_ms=least_s * 1e3,
        lost_ms=taken.occurrences * (seconds - least_s) * 1e3,
        calls_per_sample=timed.calls_per_sample,
        geometry=geometry._asdict(),
    )


def summed(
    model: str, asked: Sequence[str], measured: Sequence[Mapping[str, Any]], top: roof.Roof
) -> list[dict[str, Any]]:
    """Rows of the whole model, for every pass and for all of them.

    With several lowerings measured these are sums of those chosen, of xla, and of the fastest one
    of every pass.
    """
    picks = {asked[0]: list(measured)}
    if len(asked) > 1:
        by_case: dict[str, list[Mapping[str, Any]]] = {}
        for row in measured:
            by_case.setdefault(row["case"], []).append(row)
        picks = {
            CHOSEN: [row for row in measured if row["chosen"]],
            "xla": [row for row in measured if row["lowering"] == "xla"],
            "fastest": [
                min(alike, key=lambda row: row["step_ms"]["p50"]) for alike in by_case.values()
            ],
        }
    return [
        _total(model, label, which, kept, top)
        for label, picked in picks.items()
        for which in (*PASSES, "all passes")
        if (kept := [row for row in picked if which in (row["pass"], "all passes")])
    ]


def _total(
    model: str, label: str, which: str, kept: Sequence[Mapping[str, Any]], top: roof.Roof
) -> dict[str, Any]:
    def total(key: str) -> float:
        return sum(row["occurrences"] * row[key] for row in kept)

    milliseconds = sum(row["occurrences"] * row["step_ms"]["p50"] for row in kept)
    return rows.row(
        "conv",
        f"{model} {which}",
        dtype=kept[0]["dtype"],
        batch_size=kept[0]["batch_size"],
        image_size=kept[0]["image_size"],
        repeats=kept[0]["repeats"],
        warmup=kept[0]["warmup"],
        compile_s=sum(row["compile_s"] for row in kept),
        step_ms={"p50": milliseconds},
        roof=top,
        roof_share=total("least_ms") / milliseconds,
        model=model,
        **{"pass": which},
        lowering=label,
        occurrences=sum(row["occurrences"] for row in kept),
        flop=total("flop"),
        bytes=total("bytes"),
        gflops=total("flop") / milliseconds / 1e6,
        least_ms=total("least_ms"),
        lost_ms=sum(row["lost_ms"] for row in kept),
    )


def _worst_first(
    row: Mapping[str, Any], measured: Sequence[Mapping[str, Any]]
) -> tuple[float, str, float]:
    """The most time lost by the lowerings in use first; the lowerings of a pass stay together."""
    same = [other for other in measured if other["case"] == row["case"]]
    lost = max((other["lost_ms"] for other in same if other["chosen"]), default=row["lost_ms"])
    return -lost, row["case"], row["step_ms"]["p50"]


def _title(args: argparse.Namespace, measured: Sequence[Mapping[str, Any]]) -> str:
    device = measured[0]["cpu"] if measured[0]["device"] == "cpu" else measured[0]["device"]
    return (
        f"Convolutions of {args.model}, {args.image_size} px, batch {args.batch_size}, "
        f"{args.dtype}\n{device}"
    )


def _print(
    args: argparse.Namespace,
    measured: Sequence[Mapping[str, Any]],
    totals: Sequence[Mapping[str, Any]],
    top: roof.Roof,
) -> None:
    columns = COLUMNS | (COMPARED if any(row["ratio"] for row in measured) else {})
    rows.show(
        f"{args.model} at {args.image_size} px, batch {args.batch_size}, {args.dtype}; roof: "
        f"{top.matmul_tflops * 1e3:,.0f} GFLOP/s, {top.copy_gbs:,.0f} GB/s; most time lost first",
        measured,
        columns,
    )
    rows.show("the model's convolutions, each as often as it occurs", totals, TOTALS)


if __name__ == "__main__":
    sys.exit(main())
