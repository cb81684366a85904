"""The training step on 1 to N devices, by jit and by pmap, on resident synthetic images.

Weak scaling keeps the batch of a device, strong scaling the global batch. Every case is taken in
turn with one device alone, by the same way; the ratio is its speed-up over that, in images per
second, and the efficiency the speed-up divided by the number of devices.
"""

import argparse
import math
import os
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax

from benchmarks.compiled.collectives import summarise
from benchmarks.timing import measure, rows
from benchmarks.timing.synthetic import Training
from benchmarks.timing.workload import DTYPES, Workload, settings
from jaxres.distributed.mesh import check_batch
from jaxres.runtime.errors import InputError, unknown_name
from jaxres.runtime.memory import keep_freed_memory
from jaxres.runtime.screen import say

WAYS, KINDS = ("jit", "pmap"), ("weak", "strong")
SAMPLE_S = 0.2  # least length of a sample, so that dispatch runs ahead as it does in training

COLUMNS = {
    "case": "case",
    "devices": "device_count",
    "batch": "batch_size",
    "step ms": "step_ms.p50",
    "img/s": "images_per_s",
    "per device": "images_per_s_per_device",
    "speed-up": "ratio.median",
    "min": "ratio.min",
    "max": "ratio.max",
    "efficiency": "efficiency",
    "dispatch ms": "dispatch_ms",
    "collectives": "collective_count",
    "MiB": "collective_mib",
    "compile s": "compile_s",
}


class Sample(NamedTuple):
    """A training to be timed, and how many steps a sample of it takes."""

    training: Training
    steps: int

    def run(self) -> None:
        """One sample."""
        self.training.run(self.steps)


def main(words: Sequence[str] | None = None) -> int:
    """Status 0; 2 for what cannot be asked for."""
    args = _parser().parse_args(words)
    keep_freed_memory()  # as a training run does
    args.devices = args.devices or _powers_of_two(jax.device_count())
    try:
        _check(args)
        alone, batch_size = measure.with_smaller_batch(partial(_alone, args), args.batch_size)
    except InputError as error:
        say(f"error: {error}")
        return 2
    if batch_size < args.batch_size:
        say(f"a batch of {args.batch_size} does not fit on a device; measured with {batch_size}")
    measured: list[dict[str, Any]] = []
    for row in _measure(args, alone, batch_size):
        measured.append(row)
        rows.write(measured, args.json)
    rows.show(f"{args.model} at {args.image_size} px, {args.dtype}", measured, COLUMNS)
    if measured[0]["virtual_devices"]:
        print(
            "These devices are virtual and share the cores: the total images/s is the figure to "
            "read, and no scaling is to be expected."
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    made = rows.parser("scaling", __doc__)
    add = made.add_argument
    add("--model", default="resnet18")
    add("--image-size", type=rows.number, default=64, help="side in pixels")
    add("--batch-size", type=rows.number, default=64, help="of one device (weak), or of all")
    add("--dtype", choices=DTYPES, default="float32")
    add("--devices", type=rows.numbers, help="counts, with commas (default: 1, 2, 4, ... of all)")
    add("--parallel", type=rows.names, default=list(WAYS), help="jit, pmap")
    add("--kind", type=rows.names, default=list(KINDS), help="weak, strong")
    add("--classes", type=rows.number, default=1000)
    add("--repeats", type=rows.number, default=7)
    return made


def _powers_of_two(most: int) -> list[int]:
    return [2**power for power in range(most.bit_length())]


def _check(args: argparse.Namespace) -> None:
    """Refuse what cannot be measured, before anything is.

    Raises:
        InputError: an unknown name, too few devices, or a batch that does not divide over them.
    """
    for key, names, allowed in (("parallel", args.parallel, WAYS), ("kind", args.kind, KINDS)):
        if not names:
            raise InputError(f"--{key} names nothing; allowed: {', '.join(allowed)}")
        for name in names:
            if name not in allowed:
                raise unknown_name(f"value of --{key}", name, allowed)
    if args.repeats < measure.MIN_REPEATS:
        raise InputError(f"--repeats is {args.repeats}; allowed: {measure.MIN_REPEATS} or more")
    most, here = max(args.devices), jax.device_count()
    if most > here:
        raise InputError(
            f"--devices asks for {most} devices and there are {here} here; "
            f"JAX_NUM_CPU_DEVICES={most} in the environment makes virtual ones on CPU"
        )
    if "strong" in args.kind:
        for count in args.devices:
            check_batch(args.batch_size, count, 1)
    settings(_workload(args, args.batch_size))


def _workload(args: argparse.Namespace, batch_size: int) -> Workload:
    return Workload(args.model, args.image_size, batch_size, args.dtype, args.classes)


def _sample(args: argparse.Namespace, mode: str, devices: int, batch_size: int) -> Sample:
    """Build, compile and run once a training."""
    config = settings(_workload(args, batch_size), mode=mode)
    training = Training(config, classes=args.classes, devices=devices)
    training.run(1)
    seconds = measure.seconds_of(partial(training.run, 1))
    return Sample(training, math.ceil(SAMPLE_S / seconds))


def _alone(args: argparse.Namespace, batch_size: int) -> dict[str, Sample]:
    return {mode: _sample(args, mode, 1, batch_size) for mode in args.parallel}


def _measure(
    args: argparse.Namespace, alone: Mapping[str, Sample], batch_size: int
) -> Iterator[dict[str, Any]]:
    """A row for every kind, number of devices and way."""
    for kind in args.kind:
        for count in args.devices:
            together = batch_size * count if kind == "weak" else batch_size
            say(f"{kind}, {count} devices, batch {together}")
            cases = alone
            if count > 1:
                cases = {mode: _sample(args, mode, count, together) for mode in args.parallel}
            yield from _rows(args, kind, cases, alone)


def _rows(
    args: argparse.Namespace, kind: str, cases: Mapping[str, Sample], alone: Mapping[str, Sample]
) -> Iterator[dict[str, Any]]:
    """Time the ways in turn, each with one device alone beside it."""
    samples = {f"{mode} alone": sample for mode, sample in alone.items()} | dict(cases)
    calls = {name: sample.run for name, sample in samples.items()}
    seconds = measure.interleave(calls, warmup=1, repeats=args.repeats)
    per_image = {
        name: [each / _images(sample) for each in seconds[name]] for name, sample in samples.items()
    }
    for mode, sample in cases.items():
        against_jit = None
        if mode == "pmap" and "jit" in cases:
            against_jit = measure.ratio(per_image["pmap"], per_image["jit"])
        yield _row(
            args,
            kind,
            mode,
            sample,
            seconds[mode],
            measure.ratio(per_image[mode], per_image[f"{mode} alone"]),
            against_jit,
        )


def _images(sample: Sample) -> int:
    return sample.steps * sample.training.config.data.batch_size


def _row(
    args: argparse.Namespace,
    kind: str,
    mode: str,
    sample: Sample,
    seconds: Sequence[float],
    speed_up: measure.Spread,
    against_jit: measure.Spread | None,
) -> dict[str, Any]:
    training, count = sample.training, sample.training.mesh.size
    images_per_s = _images(sample) / statistics.median(seconds)
    collectives = summarise(training.compiled.as_text() or "")
    return rows.row(
        "scaling",
        f"{args.model} {kind} {mode} {count}",
        command=_command(),
        device_count=count,
        dtype=args.dtype,
        batch_size=training.config.data.batch_size,
        image_size=args.image_size,
        warmup=1,
        repeats=args.repeats,
        compile_s=training.compile_s,
        step_ms=measure.percentiles_ms([each / sample.steps for each in seconds]),
        dispatch_ms=statistics.median(training.dispatch_s() for _ in range(3)) * 1e3,
        images_per_s=images_per_s,
        images_per_s_per_device=images_per_s / count,
        ratio=speed_up,
        kind=kind,
        parallel=mode,
        steps_per_sample=sample.steps,
        efficiency=speed_up.median / count,
        against_jit=against_jit._asdict() if against_jit else None,
        collectives={name: each._asdict() for name, each in collectives.items() if each.count},
        collective_count=sum(each.count for each in collectives.values()),
        collective_mib=sum(each.bytes for each in collectives.values()) / 2**20,
        virtual_devices=jax.default_backend() == "cpu" and jax.device_count() > 1,
    )


def _command() -> str:
    """The command line, with the number of virtual devices it was given."""
    asked = os.environ.get("JAX_NUM_CPU_DEVICES")
    return f"JAX_NUM_CPU_DEVICES={asked} {rows.command()}" if asked else rows.command()


if __name__ == "__main__":
    sys.exit(main())
