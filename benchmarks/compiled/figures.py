"""What a compiled training step asks of one device: memory, messages, arithmetic and traffic."""

import re
from typing import Any

import jax

from benchmarks.compiled.collectives import summarise
from benchmarks.compiled.hlo import parse
from benchmarks.compiled.kernels import by_class, kernels, scattered_twice, totals
from benchmarks.compiled.topology import Topology

Row = dict[str, Any]

PER_MIB = 1 / 2**20
# The compiler has two ways of saying it, the second of temporaries alone.
NEEDED = re.compile(r"(?:Used |required for HLO temporaries \()([\d.]+)([KMGT])")
IN_MIB = {"K": 2**-10, "M": 1.0, "G": 2.0**10, "T": 2.0**20}
# JAX takes this share of a GPU's memory unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise.
GPU_SHARE = 0.75


def figures(compiled: jax.stages.Compiled, target: Topology, batch_size: int) -> Row:
    """Memory, messages and work of one device and step."""
    memory, text = compiled.memory_analysis(), compiled.as_text()
    assert memory is not None
    assert text is not None
    parts = {
        "arguments": memory.argument_size_in_bytes,
        # The state is donated: the new one takes the old one's place.
        "outputs": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "code": memory.generated_code_size_in_bytes,
    }
    total_mib = sum(parts.values()) * PER_MIB
    per_device = batch_size / target.devices
    program = parse(text)
    sent, found = summarise(text), kernels(program)
    moved = sum(kernel.bytes for kernel in found)
    # The compiler counts for TPUs; for GPUs it gives nothing.
    cost = compiled.cost_analysis() or {}
    flop = cost.get("flops") or sum(kernel.times * kernel.flop for kernel in found)
    reach = target.chip.reach
    roof_s = sum(kernel.seconds(**reach) for kernel in found)
    accessed = cost.get("bytes accessed")
    return {
        "verdict": verdict(total_mib, target),
        "memory_mib": {name: size * PER_MIB for name, size in parts.items()},
        "temporaries_bytes": memory.temp_size_in_bytes,
        "peak_memory_mib": total_mib,
        "collectives": {
            kind: {"count": each.count, "bytes": each.bytes, "mb": each.bytes / 1e6}
            for kind, each in sent.items()
        },
        "other_collectives": sum(each.count for kind, each in sent.items() if kind != "all-reduce"),
        "unordered_scatters": scattered_twice(program),
        "gflop": flop / 1e9,
        "gflop_per_image": flop / 1e9 / per_device,
        "gb_accessed": None if accessed is None else accessed / 1e9,
        "mb_per_image": None if accessed is None else accessed / 1e6 / per_device,
        "hbm_gb": moved / 1e9,
        "hbm_mb_per_image": moved / 1e6 / per_device,
        "bytes_per_image": moved / per_device,
        "kernels": sum(kernel.times for kernel in found),
        "by_class": {
            kind: totals(each, per_device, reach) for kind, each in by_class(found).items()
        },
        "bound_ms": target.chip.bound_ms(flop, moved),
        "roof_ms": 1e3 * roof_s,
        "roof_images_per_s": batch_size / roof_s if roof_s else None,
    }


def verdict(total_mib: float, target: Topology) -> str:
    """Whether a device has the memory, and on a GPU whether JAX takes enough of it unasked."""
    share = total_mib / (target.chip.hbm_gib * 1024)
    if share > 1:
        return "does not fit"
    if target.backend == "gpu" and share > GPU_SHARE:
        return f"fits with XLA_PYTHON_CLIENT_MEM_FRACTION={min(0.99, share + 0.02):.2f}"
    return "fits"


def refusal(message: str) -> Row:
    """What the compiler says when the step does not fit, and the memory it would need at least."""
    said = {"verdict": "does not fit", "refused": " ".join(message.split())[:500]}
    needed = NEEDED.search(message)
    return said | ({"peak_memory_mib": float(needed[1]) * IN_MIB[needed[2]]} if needed else {})
