"""What each kernel of a compiled step reads, writes and computes, and which part of the step it is.

A kernel is an instruction of the program that runs by itself: a fusion, a library's convolution or
product, a copy, a collective. Its traffic is the arrays it writes and the distinct arrays it reads,
each once and whole; of an array that it only cuts pieces from, the pieces. Caches may save more,
and a library's kernel may need more: it is what the program asks for, not a measurement.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from benchmarks.compiled.arithmetic import flop
from benchmarks.compiled.hlo import SILENT, Computation, Instruction, Module
from benchmarks.compiled.kinds import CLASSES, kind
from benchmarks.compiled.traffic import traffic


class Kernel(NamedTuple):
    """One kernel, as often as the step runs it (`times`, in a loop more than once)."""

    name: str
    kind: str  # of CLASSES
    read: int  # bytes, in each run
    written: int
    flop: float  # of convolutions and products
    times: int
    source: str

    @property
    def bytes(self) -> int:
        """Read and written in all runs."""
        return self.times * (self.read + self.written)

    def seconds(self, *, flop_per_s: float, bytes_per_s: float, launch_s: float) -> float:
        """The least time of all runs: each the longest of arithmetic, traffic and a launch."""
        traffic = (self.read + self.written) / bytes_per_s
        return self.times * max(self.flop / flop_per_s, traffic, launch_s)


def kernels(module: Module) -> list[Kernel]:
    """The kernels of a program in their order."""
    return list(_kernels(module, module.computations[module.entry], 1))


def scattered_twice(module: Module) -> list[str]:
    """Scatters of a program that may add to one place more than once: in no order, on a GPU."""
    return [
        f"{instruction.name} ({module.source(instruction)})"
        for computation in module.computations.values()
        for instruction in computation.values()
        if instruction.opcode in ("scatter", "select-and-scatter")
        and "unique_indices=true" not in instruction.rest
    ]


def _kernels(module: Module, body: Computation, times: int) -> Iterator[Kernel]:
    for instruction in body.values():
        opcode = instruction.opcode
        if opcode in ("while", "call", "conditional", "async-start"):
            trips = _trips(instruction) if opcode == "while" else 1
            for name in instruction.called:
                yield from _kernels(module, module.computations.get(name, {}), times * trips)
        elif opcode not in SILENT and not opcode.endswith(("-done", "-update")):
            read, written = traffic(module, body, instruction)
            inner = [instruction, *module.inside(instruction)]
            yield Kernel(
                name=instruction.name,
                kind=kind(module, instruction, inner),
                read=read,
                written=written,
                flop=flop(module, body, instruction),
                times=times,
                source=next(filter(None, map(module.source, inner)), ""),
            )


def _trips(loop: Instruction) -> int:
    """How often a loop runs; once where XLA does not say."""
    known = re.search(r'known_trip_count[^}]*?"n":"(\d+)"', loop.rest)
    return int(known[1]) if known else 1


def by_class(found: Iterable[Kernel]) -> dict[str, list[Kernel]]:
    """The kernels of each class that has any, in the order of CLASSES."""
    sorted_: dict[str, list[Kernel]] = {each: [] for each in CLASSES}
    for kernel in found:
        sorted_[kernel.kind].append(kernel)
    return {each: them for each, them in sorted_.items() if them}


def totals(found: Sequence[Kernel], images: float, reach: Mapping[str, float]) -> dict[str, float]:
    """The kernels of a class: how many, bytes and FLOP per image, and their least time."""
    return {
        "kernels": sum(kernel.times for kernel in found),
        "bytes_per_image": sum(kernel.bytes for kernel in found) / images,
        "read": sum(kernel.times * kernel.read for kernel in found) / images,
        "written": sum(kernel.times * kernel.written for kernel in found) / images,
        "flop_per_image": sum(kernel.times * kernel.flop for kernel in found) / images,
        "roof_ms": 1e3 * sum(kernel.seconds(**reach) for kernel in found),
    }
