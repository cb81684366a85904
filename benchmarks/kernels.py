"""What each kernel of a compiled step reads, writes and computes, and which part of the step it is.

A kernel is an instruction of the program that runs by itself: a fusion, a library's convolution or
product, a copy, a collective. Its traffic is the arrays it writes and the distinct arrays it reads,
each once and whole; of an array that it only cuts pieces from, the pieces. Caches may save more,
and a library's kernel may need more: it is what the program asks for, not a measurement.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from benchmarks.hlo import COLLECTIVES, MOVES, Computation, Instruction, Module, Shape

CLASSES = (
    "convolution forward",
    "convolution input gradient",
    "convolution kernel gradient",
    "batch norm statistics",
    "batch norm forward",
    "batch norm backward",
    "pooling",
    "rendering",
    "dense layers",
    "other forward",
    "other backward",
    "optimiser",
    "casts and copies",
    "collectives",
)
# Names for what is there already, and the ends of what is counted where it starts.
ALIASES = ("bitcast", "get-tuple-element", "optimization-barrier", "opt-barrier", "tuple")
SILENT = (*ALIASES, "constant", "parameter", "after-all", "iota", "partition-id", "replica-id")
COPIES = ("copy-start", "slice-start")
CUTS = ("slice", "dynamic-slice", "gather")
# What is computed of the pieces alone that are cut from it.
ELEMENTWISE = ("add", "convert", "divide", "multiply", "negate", "select", "subtract")
RENDERING = ("ops/resize.py", "ops/warp.py", "ops/blend.py", "ops/hashing.py", "data/")


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
            read, written = _traffic(module, body, instruction)
            inner = [instruction, *module.inside(instruction)]
            yield Kernel(
                name=instruction.name,
                kind=_kind(module, instruction, inner),
                read=read,
                written=written,
                flop=_flop(module, body, instruction),
                times=times,
                source=next(filter(None, map(module.source, inner)), ""),
            )


def _trips(loop: Instruction) -> int:
    """How often a loop runs; once where XLA does not say."""
    known = re.search(r'known_trip_count[^}]*?"n":"(\d+)"', loop.rest)
    return int(known[1]) if known else 1


def _traffic(module: Module, body: Computation, instruction: Instruction) -> tuple[int, int]:
    """Bytes read from main memory and written to it."""
    results = instruction.shapes
    if instruction.opcode in COPIES:
        # The two ends and the context: as much as the smaller end, at each end in main memory.
        written, read = results[:2] if instruction.opcode == "copy-start" else results[1::-1]
        smaller = min(each._replace(in_main_memory=True).bytes for each in (read, written))
        return smaller * read.in_main_memory, smaller * written.in_main_memory
    written = sum(shape.bytes for shape in results)
    arrays: dict[tuple[str, int], int] = {}
    is_fusion = instruction.opcode == "fusion"
    fused = module.computations.get(instruction.called[0], {}) if is_fusion else {}
    parameters = {
        int(inner.arguments): inner.name for inner in fused.values() if inner.opcode == "parameter"
    }
    for place, name in enumerate(instruction.operands):
        for key, shape in _buffers(body, name):
            size = shape.bytes
            if place in parameters:
                size, in_place = _taken(fused, parameters[place], size)
                written -= in_place
            elif instruction.opcode in CUTS and place == 0:
                size = min(size, written)
            arrays[key] = max(arrays.get(key, 0), size)
    return sum(arrays.values()), max(written, 0)


def _buffers(body: Computation, name: str) -> Iterator[tuple[tuple[str, int], Shape]]:
    """The arrays behind a name, by the instruction that made them and their place in its result."""
    given = body.get(name)
    if given is None:
        return
    if given.opcode == "get-tuple-element" and given.operands[0] in body:
        number = re.search(r"index=(\d+)", given.rest)
        inner = list(_buffers(body, given.operands[0]))
        place = int(number[1]) if number else 0
        # A tuple of tuples is not told apart; its arrays are found by their shape.
        if place < len(inner) and inner[place][1].elements == given.shapes[0].elements:
            yield inner[place]
        else:
            yield (given.operands[0], place), given.shapes[0]
    elif given.opcode == "bitcast" and given.operands[0] in body:
        for key, _ in _buffers(body, given.operands[0]):
            yield key, given.shapes[0]
    elif given.opcode in ALIASES:
        for operand in given.operands:
            yield from _buffers(body, operand)
    else:
        yield from (((name, place), shape) for place, shape in enumerate(given.shapes))


def _taken(fused: Computation, parameter: str, size: int) -> tuple[int, int]:
    """Bytes that a fusion reads of a parameter, and bytes it leaves as they are in its result."""
    names, cut, kept = [parameter], 0, 0
    elements = fused[parameter].shapes[0].elements
    while names:
        name = names.pop()
        users = [user for user in fused.values() if name in user.operands]
        if not users:  # the result
            return size, 0
        for user in users:
            same = user.opcode in ELEMENTWISE and user.shapes[0].elements == elements
            if user.opcode == "bitcast" or same:
                names.append(user.name)
            elif user.opcode in CUTS and user.operands[0] == name:
                cut += sum(shape.bytes for shape in user.shapes)
            elif user.opcode == "dynamic-update-slice" and user.operands[0] == name:
                kept = size - sum(shape.bytes for shape in fused[user.operands[1]].shapes)
            else:
                return size, 0
    return min(cut, size), kept


def _kind(module: Module, instruction: Instruction, inner: Sequence[Instruction]) -> str:
    opcodes = {each.opcode for each in inner}
    backward = any("transpose(" in each.op_name for each in inner)
    files = {module.source(each).partition(":")[0] for each in inner}
    if instruction.opcode.startswith(COLLECTIVES):
        return "collectives"
    if (which := _product(module, instruction, inner, files)) is not None:
        return which
    if opcodes & {"reduce-window", "select-and-scatter", "scatter"} or "ops/pool.py" in files:
        return "pooling"
    if any(name.startswith(RENDERING) for name in files):
        return "rendering"
    if opcodes <= MOVES | {*SILENT, "convert", "slice-start", "fusion"}:
        return "casts and copies"
    if not any("jvp(" in each.op_name for each in inner):
        return "optimiser" if any(each.op_name for each in inner) else "casts and copies"
    if files & {"ops/norm.py", "ops/folded_norm.py"}:
        if backward:
            return "batch norm backward"
        return "batch norm statistics" if "reduce" in opcodes else "batch norm forward"
    return "other backward" if backward else "other forward"


def _product(
    module: Module, instruction: Instruction, inner: Sequence[Instruction], files: set[str]
) -> str | None:
    """The class of a convolution or matrix product; None for what is none."""
    target = instruction.target.lower()
    main = next((each for each in inner if each.opcode in ("convolution", "dot")), None)
    if main is None and not ("conv" in target or "gemm" in target or "matmul" in target):
        return None
    main = main or instruction
    backward = "transpose(" in main.op_name
    where = module.source(main).partition(":")[0] or next(iter(files), "")
    if any(where.startswith(name) for name in RENDERING):
        return "rendering"
    if where == "ops/folded_norm.py" and "dot_general" in main.op_name:
        if not backward:
            return "batch norm statistics"
        return "convolution kernel gradient"
    if where == "ops/folded_norm.py" and main.op_name.endswith("dot"):
        return "batch norm backward" if backward else "batch norm statistics"
    if "conv" not in main.op_name.rpartition("/")[2] and "conv" not in target:
        return "dense layers"
    if not backward:
        return "convolution forward"
    if "backwardfilter" in target:
        return "convolution kernel gradient"
    if "conv" in target:
        return "convolution input gradient"
    return f"convolution {_gradient_of(module, main)} gradient"


def _gradient_of(module: Module, convolution: Instruction) -> str:
    """Of a TPU's convolutions: a kernel has fewer elements than pictures and their gradients."""
    for body in module.computations.values():
        if convolution.name in body:
            sizes = [
                sum(s.elements for s in body[name].shapes) for name in convolution.operands[:2]
            ]
            result = sum(shape.elements for shape in convolution.shapes)
            return "kernel" if result < min(sizes) else "input"
    return "input"


def _flop(module: Module, body: Computation, instruction: Instruction) -> float:
    """Of the convolutions and products of a kernel, 2 per multiply-add."""
    total = _flop_of(instruction, body)
    for name in instruction.called if instruction.opcode == "fusion" else ():
        fused = module.computations.get(name, {})
        total += sum(_flop(module, fused, inner) for inner in fused.values())
    return total


def _flop_of(instruction: Instruction, body: Computation) -> float:
    operands = [body[name].shapes[0] for name in instruction.operands if name in body]
    if len(operands) < 2 or not instruction.shapes:
        return 0.0
    (left, right), result = operands[:2], instruction.shapes[0]
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.rest)
    if "conv" in instruction.target.lower() and labels:
        # XLA keeps the labels and the window of the forward convolution in both gradients.
        which = instruction.target.lower()
        outputs = left if "backwardinput" in which else result
        outputs, kernel = (right, result) if "backwardfilter" in which else (outputs, right)
        features = kernel.sizes[labels[2].index("o")]
        return 2.0 * outputs.elements * kernel.elements / features
    if instruction.opcode == "convolution" and labels:
        spatial = [label for label in labels[3] if label.isdecimal()]
        pairs = math.prod(
            _pairs(
                instruction.rest,
                int(label),
                left.sizes[labels[1].index(label)],
                result.sizes[labels[3].index(label)],
            )
            for label in spatial
        )
        outputs = math.prod(result.sizes[labels[3].index(label)] for label in spatial)
        return 2.0 * result.elements / outputs * pairs * right.sizes[labels[2].index("i")]
    if (
        instruction.opcode == "dot"
        or "gemm" in instruction.target
        or "matmul" in instruction.target
    ):
        contracted = re.search(
            r'lhs_contracting_dim(?:s=\{|ensions":\[)([\d,"]+)', instruction.rest
        )
        dims = re.findall(r"\d+", contracted[1]) if contracted else []
        return 2.0 * result.elements * math.prod(left.sizes[int(dim)] for dim in dims)
    return 0.0


def _pairs(rest: str, dimension: int, inputs: int, outputs: int) -> int:
    """How often, along a dimension of a convolution, a tap of the window meets a pixel.

    Not counted, as in XLA's own cost analysis, are padding and what is put between pixels. (A TPU
    has products of many small matrices as convolutions whose window meets one in 64 or 256.)
    """
    window = re.search(r"window=\{([^}]*)\}", rest)
    given = dict(re.findall(r"(\w+)=([-\dx_]+)", window[1])) if window else {}

    def number(name: str, default: str = "1") -> str:
        return given[name].split("x")[dimension] if name in given else default

    taps, stride = int(number("size")), int(number("stride"))
    apart, spread = int(number("lhs_dilate")), int(number("rhs_dilate"))
    before = int(number("pad", "0_0").split("_")[0])
    last = (inputs - 1) * apart
    places = (
        output * stride + tap * spread - before for output in range(outputs) for tap in range(taps)
    )
    return sum(0 <= place <= last and place % apart == 0 for place in places)


def by_class(found: Iterable[Kernel]) -> dict[str, list[Kernel]]:
    """The kernels of each class that has any, in the order of CLASSES."""
    sorted_: dict[str, list[Kernel]] = {kind: [] for kind in CLASSES}
    for kernel in found:
        sorted_[kernel.kind].append(kernel)
    return {kind: each for kind, each in sorted_.items() if each}


def totals(found: Sequence[Kernel], images: float, reach: Mapping[str, float]) -> dict[str, float]:
    """The kernels of a class: how many, bytes and FLOP per picture, and their least time."""
    return {
        "kernels": sum(kernel.times for kernel in found),
        "bytes_per_image": sum(kernel.bytes for kernel in found) / images,
        "read": sum(kernel.times * kernel.read for kernel in found) / images,
        "written": sum(kernel.times * kernel.written for kernel in found) / images,
        "flop_per_image": sum(kernel.times * kernel.flop for kernel in found) / images,
        "roof_ms": 1e3 * sum(kernel.seconds(**reach) for kernel in found),
    }
