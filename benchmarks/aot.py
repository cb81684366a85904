"""Compile a recipe's training step for TPU topologies with no TPU: does it fit, what does it send?

The step is the one that `jaxres train` runs by `train.parallel jit`, device rendering and all,
one step per call. Nothing runs, so nothing here is a measured speed. It needs libtpu, the extra
`tpu`. Where the recipe's data sets are not prepared, their sizes are assumed, and said.
"""

import os

# Before JAX starts: the compiler is asked about chips, and this machine need not have any.
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # several processes may ask
if os.environ.setdefault("JAX_PLATFORMS", "cpu") == "cpu":
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")

import argparse
import multiprocessing
import re
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import jax

from benchmarks import measure, rows, topology
from benchmarks.collectives import summarise
from benchmarks.topology import Topology, Workload
from benchmarks.traffic import main_memory_bytes
from jaxres import recipe as recipes
from jaxres.config import Config
from jaxres.errors import InputError
from jaxres.recipe import split_settings
from jaxres.screen import quiet_libraries, say

Row = dict[str, Any]

PER_MIB = 1 / 2**20
# The compiler has two ways of saying it, the second of temporaries alone.
NEEDED = re.compile(r"(?:Used |required for HLO temporaries \()([\d.]+)([KMGT])")
IN_MIB = {"K": 2**-10, "M": 1.0, "G": 2.0**10, "T": 2.0**20}
MEMORY_COLUMNS = {
    "case": "topology",
    "chip": "device",
    "devices": "device_count",
    "batch each": "batch_per_device",
    "compile s": "compile_s",
    "args MiB": "memory_mib.arguments",
    "outputs": "memory_mib.outputs",
    "temps": "memory_mib.temporaries",
    "code": "memory_mib.code",
    "total": "peak_memory_mib",
    "HBM": "hbm_mib",
    "verdict": "verdict",
}
WORK_COLUMNS = {
    "case": "topology",
    "all-reduce": "collectives.all-reduce.count",
    "MB": "collectives.all-reduce.mb",
    "others": "other_collectives",
    "GFLOP": "gflop",
    "a picture": "gflop_per_image",
    "GB accessed": "gb_accessed",
    "in HBM": "hbm_gb",
    "MB a picture": "hbm_mb_per_image",
    "FLOP ms": "bound_ms.arithmetic",
    "HBM ms": "bound_ms.traffic",
    "bound ms": "bound_ms.step",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Status 0, also for what does not fit; 1 if a compilation fails; 2 for wrong requests."""
    own, flags = split_settings(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(own)
    quiet_libraries()
    try:
        config = recipes.load(args.recipe, flags, prog="python -m benchmarks.aot")
        devices = [topology.describe(name).devices for name in args.topology]
        batches = [batch_for(config, count, args.per_device_batch) for count in devices]
        work = topology.workload(config)
    except InputError as error:
        say(f"error: {error}")
        return 2
    print(f"{config.model.name}, {work.told}")
    if (parts := config.optim.accumulate_steps) > 1:
        print(f"the compiler counts the work of a loop once: of one of {parts} accumulation parts")
    made, failed = [], False
    for name, (batch_size, why) in zip(args.topology, batches, strict=True):
        if why:
            print(f"{name}: {why}")
        try:
            made.append(apart(args.recipe, config, work, name, batch_size))
        except BrokenProcessPool:
            said = (
                f"the compiler (libtpu {topology.libtpu_version()}) died; another version may not"
            )
            say(f"error: {name}: {said}")
            failed = True
        except Exception as error:
            say(f"error: {name}: {type(error).__name__}: {' '.join(str(error).split())}")
            failed = True
        rows.write(made, args.json)
    show(made)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = rows.parser("aot", __doc__)
    parser.add_argument("recipe", type=Path, metavar="RECIPE", help="and --section.key VALUE ...")
    parser.add_argument(
        "--topology",
        type=rows.names,
        required=True,
        metavar="NAME,...",
        help=f"chip and shape, with commas, such as {','.join(topology.EXAMPLES)}",
    )
    parser.add_argument(
        "--per-device-batch",
        type=int,
        metavar="N",
        help="pictures per device and step, in place of data.batch_size over all devices",
    )
    return parser


def batch_for(config: Config, devices: int, per_device: int | None) -> tuple[int, str]:
    """The global batch for a number of devices, and why it is not the recipe's (or nothing).

    Raises:
        InputError: the batch of a device cannot be cut into the recipe's accumulation parts.
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


def apart(recipe: Path, config: Config, work: Workload, name: str, batch_size: int) -> Row:
    """`row` in a process of its own: a compiler that dies takes no other row along.

    Raises:
        BrokenProcessPool: the process died.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(row, recipe, config, work, name, batch_size).result()


def row(recipe: Path, config: Config, work: Workload, name: str, batch_size: int) -> Row:
    """Compile for one topology and say what came of it.

    Raises:
        Exception: whatever the compiler raises but exhausted memory.
    """
    # What is reported is a compilation, not a look into the cache.
    jax.config.update("jax_enable_compilation_cache", False)
    target = topology.describe(name)
    lowered = topology.lower(config, work, target, batch_size)
    known = {
        "topology": target.name,
        "recipe": str(recipe),
        "data": work.told,
        "device": target.kind,
        "device_count": target.devices,
        "dtype": config.model.dtype,
        "batch_size": batch_size,
        "batch_per_device": batch_size // target.devices,
        "image_size": config.data.picture_side,
        "sync_batch_norm": config.model.sync_batch_norm,
        "chip": target.chip._asdict(),
        "hbm_mib": target.chip.hbm_gib * 1024,
    }
    began = time.perf_counter()
    try:
        compiled = lowered.compile()
    except Exception as error:
        if not measure.out_of_memory(error):
            raise
        found = refusal(str(error))
    else:
        found = figures(compiled, target, batch_size)
    known["compile_s"] = time.perf_counter() - began
    made = rows.row("aot", f"{recipe.stem} {target.name}", **known, **found)
    made["versions"] = made["versions"] | {"libtpu": topology.libtpu_version()}
    return made


def figures(compiled: jax.stages.Compiled, target: Topology, batch_size: int) -> Row:
    """Memory, messages and work of one device and step."""
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    text = compiled.as_text()
    assert memory is not None
    assert cost is not None
    assert text is not None
    parts = {
        "arguments": memory.argument_size_in_bytes,
        # The state is donated: the new one takes the old one's place.
        "outputs": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "code": memory.generated_code_size_in_bytes,
    }
    total_mib = sum(parts.values()) * PER_MIB
    fits = total_mib <= target.chip.hbm_gib * 1024
    sent, moved = summarise(text), main_memory_bytes(text)
    per_device = batch_size / target.devices
    flop, accessed = cost["flops"], cost["bytes accessed"]
    return {
        "verdict": "fits" if fits else "does not fit",
        "memory_mib": {name: size * PER_MIB for name, size in parts.items()},
        "peak_memory_mib": total_mib,
        "collectives": {
            kind: {"count": each.count, "bytes": each.bytes, "mb": each.bytes / 1e6}
            for kind, each in sent.items()
        },
        "other_collectives": sum(each.count for kind, each in sent.items() if kind != "all-reduce"),
        "gflop": flop / 1e9,
        "gflop_per_image": flop / 1e9 / per_device,
        "gb_accessed": accessed / 1e9,
        "mb_per_image": accessed / 1e6 / per_device,
        "hbm_gb": moved / 1e9,
        "hbm_mb_per_image": moved / 1e6 / per_device,
        "bound_ms": target.chip.bound_ms(flop, moved),
    }


def refusal(message: str) -> Row:
    """What the compiler says when the step does not fit, and the memory it would need at least."""
    said = {"verdict": "does not fit", "refused": " ".join(message.split())[:500]}
    needed = NEEDED.search(message)
    return said | ({"peak_memory_mib": float(needed[1]) * IN_MIB[needed[2]]} if needed else {})


def show(made: Sequence[dict[str, Any]]) -> None:
    """Both tables."""
    if not made:
        return
    rows.show("memory of one device", made, MEMORY_COLUMNS)
    for each in made:
        if "refused" in each:
            print(f"{each['topology']}: the compiler refused: {each['refused']}")
    rows.show("one step on one device", made, WORK_COLUMNS)
    print(
        "FLOP ms and HBM ms are the compiled step's arithmetic and memory traffic at the chip's\n"
        "specified speeds; the bound is the longer one: a least time, not a measurement.\n"
        "GB accessed is the compiler's count, on-chip memory included."
    )


if __name__ == "__main__":
    sys.exit(main())
