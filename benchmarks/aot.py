"""Compile a recipe's training step for chips that are not there: does it fit, what does it move?

The step is the one that `jaxres train` runs by `train.parallel jit`, device rendering and all,
one step per call. Nothing runs, so nothing here is a measured speed. TPUs need libtpu, the extra
`tpu`, GPUs JAX's CUDA plugin, the extra `gpu-aot`. Where the recipe's datasets are not prepared,
their sizes are assumed, and said.
"""

import os

# Before JAX starts: the compiler is asked about chips, and this machine need not have any.
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # several processes may ask
if os.environ.setdefault("JAX_PLATFORMS", "cpu") == "cpu":
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks.compiled import tables, topology
from benchmarks.compiled.figures import figures, refusal
from benchmarks.compiled.topology import Workload
from benchmarks.peers import variants
from benchmarks.timing import apart, measure, rows
from jaxres.config import Config
from jaxres.config import recipe as recipes
from jaxres.config.recipe import split_settings
from jaxres.runtime.errors import InputError
from jaxres.runtime.files import write_whole
from jaxres.runtime.screen import quiet_libraries, say

Row = dict[str, Any]

AUTOTUNE = "--xla_gpu_autotune_level=0"  # it would run kernels


def main(argv: Sequence[str] | None = None) -> int:
    """Status 0, also for what does not fit; 1 if a compilation fails; 2 for wrong requests."""
    own, flags = split_settings(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(own)
    quiet_libraries()
    try:
        config = recipes.load(args.recipe, flags, prog="python -m benchmarks.aot")
        if args.hlo is not None and len(args.topology) * len(args.per_device_batch or [0]) > 1:
            raise InputError("--hlo keeps one program; allowed: one --topology and batch with it")
        ours = [None, *([args.against] if args.against else [])]
        for name in filter(None, ours):
            variants.find(name)
        devices = [topology.describe(name).devices for name in args.topology]
        cases = [
            (name, *batch_for(config, count, each))
            for name, count in zip(args.topology, devices, strict=True)
            for each in args.per_device_batch or [None]
        ]
        work = topology.workload(config)
    except InputError as error:
        say(f"error: {error}")
        return 2
    print(f"{config.model.name}, {work.told}")
    if (parts := config.optim.accumulate_steps) > 1:
        print(f"the compiler counts the work of a loop once: of one of {parts} microbatches")
    made, failed = [], False
    for name, batch_size, why in cases:
        if why:
            print(f"{name}: {why}")
        for variant in ours:
            asked = Asked(args.recipe, name, batch_size, variant, args.hlo)
            try:
                made.append(row_apart(config, work, asked))
            except BrokenProcessPool:
                compiler = " ".join(map(str, *topology.compiler_version(name).items()))
                say(f"error: {name}: the compiler ({compiler}) died; another version may not")
                failed = True
            except Exception as error:
                say(f"error: {name}: {type(error).__name__}: {' '.join(str(error).split())}")
                failed = True
            rows.write(made, args.json)
    tables.show(made)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = rows.parser("aot", __doc__)
    parser.add_argument(
        "recipe", type=rows.local_path, metavar="RECIPE", help="and --section.key VALUE ..."
    )
    parser.add_argument(
        "--topology",
        type=rows.names,
        required=True,
        metavar="NAME,...",
        help=f"chip and shape, with commas, such as {','.join(topology.EXAMPLES)}",
    )
    parser.add_argument(
        "--per-device-batch",
        type=rows.numbers,
        metavar="N,...",
        help="images per device and step, in place of data.batch_size over all devices",
    )
    parser.add_argument(
        "--against",
        metavar="VARIANT",
        help=f"compile this too and set it beside: {', '.join(variants.VARIANTS)}",
    )
    parser.add_argument(
        "--hlo",
        type=rows.local_path,
        metavar="FILE",
        help="keep the optimised program here, the variant's beside it as STEM.VARIANT.SUFFIX",
    )
    return parser


def batch_for(config: Config, devices: int, per_device: int | None) -> tuple[int, str]:
    """The global batch for a number of devices, and why it is not the recipe's (or nothing).

    Raises:
        InputError: the batch of a device cannot be split into the recipe's microbatches.
    """
    parts = config.optim.accumulate_steps
    if per_device is not None:
        if per_device < 1 or per_device % parts:
            allowed = f"multiples of {parts} (optim.accumulate_steps)" if parts > 1 else "1 or more"
            raise InputError(f"--per-device-batch is {per_device}; allowed: {allowed}")
        return per_device * devices, ""
    asked, unit = config.data.batch_size, devices * parts
    batch_size = max(1, round(asked / unit)) * unit
    if batch_size == asked:
        return asked, ""
    return batch_size, f"batch of {batch_size}, as {asked} does not divide over {unit} parts"


class Asked(NamedTuple):
    """One program to compile."""

    recipe: Path
    topology: str
    batch_size: int
    variant: str | None = None
    hlo: Path | None = None

    @property
    def label(self) -> str:
        """As the tables name it."""
        return self.topology if self.variant is None else f"{self.topology} {self.variant}"


def row_apart(config: Config, work: Workload, asked: Asked) -> Row:
    """`row` in a process of its own: a compiler that dies takes no other row along.

    Raises:
        BrokenProcessPool: the process died.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if topology.is_gpu(asked.topology) and "xla_gpu_autotune_level" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {AUTOTUNE}".strip()
    try:
        return apart.call(row, config, work, asked)
    finally:
        os.environ["XLA_FLAGS"] = flags


def row(config: Config, work: Workload, asked: Asked) -> Row:
    """Compile for one topology and say what came of it.

    Raises:
        Exception: whatever the compiler raises but exhausted memory.
    """
    # What is reported is a compilation, not a look into the cache.
    jax.config.update("jax_enable_compilation_cache", False)
    target = topology.describe(asked.topology)
    variant = variants.Variant("") if asked.variant is None else variants.find(asked.variant)
    config, batch_size = variant.apply(config), asked.batch_size
    with variant.tracing():
        lowered = topology.lower(config, work, target, batch_size)
    known = {
        "topology": target.name,
        "variant": asked.variant,
        "label": asked.label,
        "recipe": str(asked.recipe),
        "data": work.told,
        "device": target.kind,
        "device_count": target.devices,
        "dtype": config.model.dtype,
        "batch_size": batch_size,
        "batch_per_device": batch_size // target.devices,
        "image_size": config.data.image_size,
        "sync_batch_norm": config.model.sync_batch_norm,
        "chip": target.chip._asdict(),
        "hbm_mib": target.chip.hbm_gib * 1024,
    }
    began = time.perf_counter()
    try:
        compiled = lowered.compile(compiler_options=dict(variant.compiler_options) or None)
    except Exception as error:
        if not measure.out_of_memory(error):
            raise
        found = refusal(str(error))
    else:
        if asked.hlo is not None:
            keep(compiled.as_text() or "", asked.hlo, asked.variant)
        found = figures(compiled, target, batch_size)
    known["compile_s"] = time.perf_counter() - began
    made = rows.row("aot", f"{asked.recipe.stem} {asked.label}", **known, **found)
    made["versions"] = made["versions"] | topology.compiler_version(asked.topology)
    return made


def keep(text: str, path: Path, variant: str | None) -> None:
    """Write a program, a variant's beside the recipe's."""
    if variant is not None:
        path = path.with_name(f"{path.stem}.{variant}{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)


if __name__ == "__main__":
    sys.exit(main())
