"""The training step on resident synthetic images, alone or interleaved with peers.

The cases are all combinations of the lists, or those of --case, each on one device unless
--devices says otherwise (peers use one). One row per case and peer.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import jax

from benchmarks import peers
from benchmarks.steps import versus
from benchmarks.timing import apart, measure, rows
from benchmarks.timing.workload import DTYPES, Workload, settings
from jaxres.distributed.mesh import check_batch, make_mesh
from jaxres.models.pure import abstract_net
from jaxres.models.registry import list_models, smallest_image
from jaxres.ops.conv import LOWERINGS
from jaxres.runtime.errors import InputError, unknown_name
from jaxres.runtime.memory import keep_freed_memory

COLUMNS = {
    "case": "case",
    "batch": "batch_size",
    "img/s": "images_per_s",
    "step ms": "step_ms.p50",
    "dispatch ms": "dispatch_ms",
    "compile s": "compile_s",
    "MFU": "mfu",
    "of limit": "roof_share",
    "MiB": "peak_memory_mib",
    "peer": "peer.name",
    "its img/s": "peer.images_per_s",
    "ratio": "ratio.median",
    "min": "ratio.min",
    "max": "ratio.max",
}


def main(words: Sequence[str] | None = None) -> int:
    """Status 0; 1 if a case or a peer could not run; 2 for what cannot be asked for."""
    args = _parser().parse_args(words)
    if args.list:
        for name in list_models():
            print(name, smallest_image(name))
        return 0
    if args.peer:
        # JAX would take three quarters of a GPU's memory, and leave a peer the rest.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    measured: list[dict[str, Any]] = []
    failures: list[str] = []
    try:
        works = _works(args)
        # Accelerators count the most memory that a process ever held: a process for each case.
        alone = len(works) > 1 and apart.devices()[0] != "cpu"
        if not alone:
            _check_devices(works, args)
        for work in works:
            found = apart.call(_rows_alone, work, args) if alone else _rows(work, args)
            for row in found:
                if isinstance(row, versus.Failed):
                    failures.append(str(row))
                else:
                    measured.append(row)
                    rows.write(measured, args.json)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows.show("training step", measured, COLUMNS)
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _check_devices(works: Sequence[Workload], args: argparse.Namespace) -> None:
    """Refuse more devices than there are, and batches that do not divide over them."""
    mesh = make_mesh(args.devices)
    for work in works:
        check_batch(work.batch_size, mesh.size, 1)


def _rows(work: Workload, args: argparse.Namespace) -> Iterator[dict[str, Any] | versus.Failed]:
    """The rows of a case and what failed of it."""
    keep_freed_memory()  # as a training run does; peers in this process gain too
    try:
        yield from versus.rows_of(work, make_mesh(args.devices), args)
    except versus.Failed as failure:
        yield versus.Failed(*failure.args)  # without the traceback, which holds its arrays


def _rows_alone(work: Workload, args: argparse.Namespace) -> list[dict[str, Any] | versus.Failed]:
    """The same, all at once, in a process that has this case alone."""
    _check_devices([work], args)
    return list(_rows(work, args))


def _parser() -> argparse.ArgumentParser:
    made = rows.parser("step", __doc__)
    add = made.add_argument
    add("--model", type=rows.names, help="models, with commas (default: resnet50)")
    add("--list", action="store_true", help="print each model and the side of its smallest image")
    add("--image-size", type=rows.numbers, help="sides in pixels, with commas (default: 224)")
    add("--batch-size", type=rows.numbers, help="images per step, with commas (default: 16)")
    add(
        "--case",
        type=_cases,
        metavar="MODEL:SIZE:BATCH,...",
        help="cases one by one, in place of the three lists",
    )
    add("--dtype", type=rows.names, default=["float32"], help="float32, bfloat16")
    add("--peer", type=rows.names, default=[], help=f"any of {', '.join(peers.NAMES)}")
    add("--classes", type=_positive, default=1000)
    add("--repeats", type=_positive, default=7, help="samples, or pairs with a peer")
    add("--warmup", type=_positive, default=1, help="samples before the clock starts")
    add(
        "--lowering",
        choices=tuple(LOWERINGS),
        help="computes each of our convolutions that it can; default: the rules' choice",
    )
    add("--steps-per-call", type=_positive, default=1, help="our steps in one dispatch")
    add("--parallel", choices=("jit", "pmap"), default="jit")
    add("--devices", type=_positive, default=1, help="the first N (default: 1)")
    add(
        "--profile",
        type=rows.local_path,
        metavar="DIR",
        help="trace our steps; time by class",
    )
    return made


def _positive(text: str) -> int:
    numbers = rows.numbers(text)
    if len(numbers) != 1:
        raise argparse.ArgumentTypeError(f"'{text}'; allowed: one whole number above 0")
    return numbers[0]


def _cases(text: str) -> list[tuple[str, int, int]]:
    found = []
    for case in rows.names(text) or [""]:
        parts = case.split(":")
        if len(parts) != 3:
            raise argparse.ArgumentTypeError(f"'{case}'; allowed: MODEL:SIZE:BATCH")
        found.append((parts[0], _positive(parts[1]), _positive(parts[2])))
    return found


def _works(args: argparse.Namespace) -> list[Workload]:
    """The cases asked for, each found buildable before anything is measured.

    Raises:
        InputError: an unknown name, a peer that is not installed, or a size that does not fit.
    """
    lists = (args.model, args.image_size, args.batch_size)
    if args.case and any(lists):
        raise InputError("--case goes without --model, --image-size and --batch-size")
    models, image_sizes, batch_sizes = lists
    crossed = product(models or ["resnet50"], image_sizes or [224], batch_sizes or [16])
    cases: list[tuple[str, int, int]] = args.case or list(crossed)
    if args.json is not None and args.json.is_dir():
        raise InputError(f"--json is '{args.json}', which is a folder; allowed: a file")
    if args.profile is not None and args.profile.is_file():
        raise InputError(f"--profile is '{args.profile}', which is a file; allowed: a folder")
    if args.devices > 1 and args.peer:
        raise InputError(f"--devices is {args.devices}; allowed with --peer: 1, as peers use one")
    if args.repeats < measure.MIN_REPEATS:
        raise InputError(f"--repeats is {args.repeats}; allowed: {measure.MIN_REPEATS} or more")
    dtypes: list[str] = args.dtype
    if not dtypes:
        raise InputError(f"--dtype is empty; allowed: {', '.join(DTYPES)}")
    for dtype in dtypes:
        if dtype not in DTYPES:
            raise unknown_name("dtype", dtype, DTYPES)
    works = [
        Workload(model, image_size, batch_size, dtype, args.classes)
        for (model, image_size, batch_size), dtype in product(cases, dtypes)
    ]
    for work in works:
        if work.model not in list_models():
            raise unknown_name("model", work.model, list_models())
        settings(work)
        abstract_net(work.model, classes=work.classes, image_size=work.image_size)
    peers.check(args.peer, [work.model for work in works])
    return works


if __name__ == "__main__":
    jax.config.update("jax_enable_compilation_cache", False)  # compile_s is of a cold compile,
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # also in the processes of cases
    sys.exit(main())
