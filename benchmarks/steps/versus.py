"""One training step measured, alone or in turn with peers: the rows of a case."""

import argparse
import contextlib
import gc
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from jax.sharding import Mesh

from benchmarks import peers
from benchmarks.convolutions import bound
from benchmarks.convolutions.traced import convolutions, first_layer_flop
from benchmarks.hardware import chips
from benchmarks.steps import beside_roof, opclasses
from benchmarks.timing import measure, roof, rows
from benchmarks.timing.synthetic import Training
from benchmarks.timing.workload import Workload, settings
from jaxres.models.count import count
from jaxres.ops.conv import prefer_lowering

MIN_SAMPLE_S = 0.5
DISPATCHES, DISPATCHES_S = 7, 3.0  # no more dispatches than these, or than fit in this time
Call = tuple[Callable[[int], None], int]  # runs a number of steps, a multiple of the other number


class Failed(Exception):  # noqa: N818
    """A case, or a peer that was asked for, could not run; the message says why."""


class Timing(NamedTuple):
    """Seconds per step of each sample, and how many steps a sample has."""

    seconds: list[float]
    steps_per_sample: int

    def images_per_s(self, batch_size: int) -> float:
        """At the median step."""
        return batch_size / statistics.median(self.seconds)


def rows_of(
    work: Workload, mesh: Mesh, args: argparse.Namespace
) -> Iterator[dict[str, Any] | Failed]:
    """A row for each peer of `args.peer`, or the peer's failure; one row if none can run.

    If memory ends, the batch of ours and of the peers is halved.

    Raises:
        Failed: not even a batch of one image per device fits.
    """
    say(f"{case_of(work)}: compiling")

    def build(batch_size: int) -> Training:
        smaller = work._replace(batch_size=batch_size)
        config = settings(smaller, mode=args.parallel, steps_per_call=args.steps_per_call)
        asked = prefer_lowering(args.lowering) if args.lowering else contextlib.nullcontext()
        with asked:
            own = Training(config, classes=work.classes, devices=mesh.size)
        own.run(args.steps_per_call)
        return own

    try:
        own, batch_size = measure.with_smaller_batch(build, work.batch_size, unit=mesh.size)
    except Exception as error:
        if not measure.out_of_memory(error):
            raise
        raise Failed(f"{case_of(work)} does not fit in memory, nor any smaller batch") from None
    if batch_size < work.batch_size:
        say(f"{case_of(work)}: out of memory; batch {batch_size} instead")
    ran = work._replace(batch_size=batch_size)
    described = _described(own, ran, mesh, args) | {"requested_batch_size": work.batch_size}
    if args.profile is not None:
        taken = opclasses.profile(own, args.profile / case_of(ran).replace(" ", "-"))
        opclasses.show(taken, case_of(ran))
        described["profile_ms"] = taken.by_class() | {"idle": taken.idle}
        if (chip := chips.of_device(mesh.devices.flat[0].device_kind)) is not None:
            beside = beside_roof.by_class(
                taken,
                own.compiled.as_text() or "",
                chip,
                ran.batch_size // mesh.size,
                steps_per_call=args.steps_per_call,
            )
            beside_roof.show(beside, case_of(ran))
            described["profile_by_class"] = beside
    failed = 0
    for name in args.peer:
        say(f"{case_of(ran)}: with {name}")
        try:
            yield _row(own, ran, mesh, args, described, name)
        except Failed as failure:
            failed += 1
            yield Failed(*failure.args)  # without the traceback, which holds its arrays
        peers.release()
    if failed == len(args.peer):
        yield _row(own, ran, mesh, args, described, None)


def case_of(work: Workload) -> str:
    """A case in words."""
    return f"{work.model} {work.image_size}px batch {work.batch_size} {work.dtype}"


def say(line: str) -> None:
    """What is being done, on standard error."""
    print(line, file=sys.stderr, flush=True)


def _described(
    own: Training, work: Workload, mesh: Mesh, args: argparse.Namespace
) -> dict[str, Any]:
    """What a row says of our step whatever the peer; memory first, before others need any.

    A training step is three forward passes' arithmetic less the gradient of the images.
    """
    peak = measure.peak_memory_mib(own.compiled)
    first_gflop = first_layer_flop(work.model, work.image_size, classes=work.classes) / 1e9
    forward = count(work.model, image_size=work.image_size, classes=work.classes).gflop
    return {
        "model": work.model,
        "classes": work.classes,
        "parallel": args.parallel,
        "steps_per_call": args.steps_per_call,
        "lowering": args.lowering,
        "device_count": mesh.size,
        "dtype": work.dtype,
        "batch_size": work.batch_size,
        "image_size": work.image_size,
        "warmup": args.warmup,
        "repeats": args.repeats,
        "compile_s": own.compile_s,
        "dispatch_ms": _dispatch_ms(own),
        "gflop_per_image": 3 * forward - first_gflop,
        "peak_memory_mib": peak,
    }


def _dispatch_ms(own: Training) -> float:
    """The median host time of a call, with the devices idle before."""
    until = time.perf_counter() + DISPATCHES_S
    taken = [own.dispatch_s()]
    while len(taken) < DISPATCHES and time.perf_counter() < until:
        taken.append(own.dispatch_s())
    return 1e3 * statistics.median(taken)


def _row(
    own: Training,
    work: Workload,
    mesh: Mesh,
    args: argparse.Namespace,
    described: dict[str, Any],
    name: str | None,
) -> dict[str, Any]:
    calls: dict[str, Call] = {"ours": (own.run, args.steps_per_call)}
    peer = None
    if name is not None:
        peer = _built(name, work, mesh.devices.flat[0].platform)
        calls[name] = (peer.run, 1)
    timings = _timed(calls, args)
    ours = timings["ours"]
    images_per_s = ours.images_per_s(work.batch_size)
    per_device = images_per_s / mesh.size
    limit = roof.measured(work.dtype)
    local = work.batch_size // mesh.size
    found = convolutions(work.model, work.image_size, local, work.dtype, classes=work.classes)
    least_s = bound.step_seconds(found, limit) if found else None
    measured = described | {
        "steps_per_sample": ours.steps_per_sample,
        "step_ms": measure.percentiles_ms(ours.seconds),
        "images_per_s": images_per_s,
        "images_per_s_per_device": per_device,
        "mfu": described["gflop_per_image"] * per_device / (1e3 * limit.matmul_tflops),
        "roof": limit,
        "roof_share": None if least_s is None else least_s * per_device / local,
    }
    if name is not None and peer is not None:
        theirs = timings[name]
        measured["peer"] = rows.peer(name, peer.version, theirs.images_per_s(work.batch_size)) | {
            "step_ms": measure.percentiles_ms(theirs.seconds),
            "steps_per_sample": theirs.steps_per_sample,
            "compile_s": peer.compile_s,
        }
        measured["peer_settings"] = peer.settings
        measured["ratio"] = measure.ratio(ours.seconds, theirs.seconds)
    return rows.row("step", case_of(work), **measured)


def _built(name: str, work: Workload, platform: str) -> peers.Peer:
    """A peer that has run a step.

    Raises:
        Failed: whatever it was that kept it from that.
    """
    try:
        peer = peers.build(name, work, platform)
        peer.run(1)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        raise Failed(f"peer '{name}' cannot run {case_of(work)}: {reason}") from None
    return peer


def _timed(calls: dict[str, Call], args: argparse.Namespace) -> dict[str, Timing]:
    """Samples of about half a second or a call, whichever is longer, of each side in turn."""
    steps = {name: _steps_per_sample(run, least) for name, (run, least) in calls.items()}
    samples = {name: partial(run, steps[name]) for name, (run, _) in calls.items()}
    gc.collect()
    taken = measure.interleave(samples, warmup=args.warmup, repeats=args.repeats)
    return {
        name: Timing([sample / steps[name] for sample in seconds], steps[name])
        for name, seconds in taken.items()
    }


def _steps_per_sample(run: Callable[[int], None], least: int) -> int:
    seconds = measure.seconds_of(partial(run, least))
    if seconds < MIN_SAMPLE_S:  # the first may have been slow
        seconds = measure.seconds_of(partial(run, least))
    return least * max(1, math.ceil(MIN_SAMPLE_S / seconds))
