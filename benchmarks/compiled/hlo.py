"""Optimised programs as XLA prints them (`Compiled.as_text()`), read for CPU, GPU and TPU alike."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([a-z][\w\-]*)\((.*)")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?")
_COMMENT = re.compile(r"/\*.*?\*/")
_ON_CHIP = re.compile(r"S\(\d+\)")  # the memory space of a layout; main memory's is not written


COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "all-to-all",
    "reduce-scatter",
    "collective-permute",
    "collective-broadcast",
)
MOVES = {
    *("copy", "copy-start", "copy-done", "transpose", "reshape", "bitcast", "broadcast"),
    *("slice", "dynamic-slice", "dynamic-update-slice", "concatenate", "pad", "reverse", "iota"),
}
# Names for what is there already, and the ends of what is counted where it starts.
ALIASES = ("bitcast", "get-tuple-element", "optimization-barrier", "opt-barrier", "tuple")
SILENT = (*ALIASES, "constant", "parameter", "after-all", "iota", "partition-id", "replica-id")


class Shape(NamedTuple):
    """An array's dtype as XLA writes it, its sizes, and whether it lies in main memory."""

    dtype: str
    sizes: tuple[int, ...]
    in_main_memory: bool = True

    @property
    def elements(self) -> int:
        """How many."""
        return math.prod(self.sizes)

    @property
    def bytes(self) -> int:
        """In main memory, without padding."""
        return bytes_of(self.dtype, self.elements) if self.in_main_memory else 0


class Instruction(NamedTuple):
    """One line of a computation."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]  # of a tuple all arrays
    operands: tuple[str, ...]
    called: tuple[str, ...]  # computations
    target: str  # of a custom call
    op_name: str  # JAX's, such as jit(step)/transpose(jvp())/dot_general
    frame: int | None
    arguments: str  # the text between the parentheses: of a parameter its number
    rest: str  # the line after the operands
    is_root: bool


Computation = dict[str, Instruction]


class Module(NamedTuple):
    """A whole program. `sources` has by stack frame the innermost line of the package."""

    computations: dict[str, Computation]
    entry: str
    sources: dict[int, str]

    def inside(self, instruction: Instruction) -> Iterator[Instruction]:
        """What a fusion, call or loop holds, results first, however deep."""
        if instruction.opcode not in ("fusion", "call", "while", "conditional", "async-start"):
            return
        for name in instruction.called:
            for inner in reversed(self.computations.get(name, {}).values()):
                yield inner
                yield from self.inside(inner)

    def source(self, instruction: Instruction) -> str:
        """Where an instruction was traced, as `ops/conv.py:306 _dot`; "" if unknown."""
        return self.sources.get(instruction.frame, "") if instruction.frame is not None else ""


def parse(text: str) -> Module:
    """Read a module."""
    computations: dict[str, Computation] = {}
    body: Computation = {}
    entry = ""
    for line in text.splitlines():
        if not line.startswith(" "):
            if heading := re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line):
                body = computations.setdefault(heading[2], {})
                entry = heading[2] if heading[1] else entry
        elif found := _INSTRUCTION.match(_COMMENT.sub("", line)):
            instruction = _instruction(*found.groups())
            body[instruction.name] = instruction
    return Module(computations, entry, _sources(text))


def shapes_of(text: str) -> tuple[Shape, ...]:
    """The arrays that a shape, perhaps of a tuple, names."""
    return tuple(
        Shape(dtype, _integers(sizes), not _ON_CHIP.search(layout or ""))
        for dtype, sizes, layout in _ARRAY.findall(text)
    )


def bytes_of(dtype: str, elements: int) -> int:
    """The size of so many elements.

    A pred is a byte and a token nothing; of the others the name says the bits (bf16, f8e4m3fn).
    """
    if dtype == "token":
        return 0
    bits = re.search(r"\d+", dtype)
    return elements * (int(bits[0]) if bits else 8) // 8


def _instruction(root: str | None, name: str, shape: str, opcode: str, tail: str) -> Instruction:
    operands, rest = _split_operands(tail)
    target = re.search(r'custom_call_target="([^"]*)"', rest)
    branches = re.search(r"branch_computations=\{([^}]*)\}", rest)
    called = re.findall(r"(?:calls|body|to_apply|computation)=%?([\w.\-]+)", rest)
    called += re.findall(r"[\w.\-]+", branches[1]) if branches else []
    op_name = re.search(r'op_name="([^"]*)"', rest)
    frame = re.search(r"stack_frame_id=(\d+)", rest)
    return Instruction(
        name=name,
        opcode=opcode,
        shapes=shapes_of(shape),
        operands=tuple(re.findall(r"%([\w.\-]+)", operands)),
        called=tuple(called),
        target=target[1] if target else "",
        op_name=op_name[1] if op_name else "",
        frame=int(frame[1]) if frame else None,
        arguments=operands,
        rest=rest,
        is_root=bool(root),
    )


def _split_operands(tail: str) -> tuple[str, str]:
    """What stands before the parenthesis that closes the operands, and what after it."""
    depth = 1
    for place, letter in enumerate(tail):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return tail[:place], tail[place + 1 :]
    return tail, ""


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)


def _sources(text: str) -> dict[int, str]:
    """By stack frame the innermost line of the package, as `ops/conv.py:306 _dot`."""
    head = text.split("\n%", 1)[0]
    files, functions = (
        {int(number): name for number, name in re.findall(r'^(\d+) "(.*)"$', part, re.M)}
        for part in (_table(head, "FileNames"), _table(head, "FunctionNames"))
    )
    places = re.findall(
        r"^(\d+) \{file_name_id=(\d+) function_name_id=(\d+) line=(\d+)",
        _table(head, "FileLocations"),
        re.M,
    )
    locations = {
        int(number): (files[int(file)], functions[int(function)], line)
        for number, file, function, line in places
    }
    frames = re.findall(
        r"^(\d+) \{file_location_id=(\d+) parent_frame_id=(\d+)",
        _table(head, "StackFrames"),
        re.M,
    )
    sources: dict[int, str] = {}
    for number, location, parent in ((int(a), int(b), int(c)) for a, b, c in frames):
        file, function, line = locations[location]
        _, package, path = file.rpartition("/jaxres/")
        if package:
            sources[number] = f"{path}:{line} {function.rpartition('<locals>.')[2]}"
        else:  # parents come first and are counted from 1: 1 is none
            sources[number] = sources.get(parent - 1, "")
    return sources


def _table(head: str, title: str) -> str:
    return head.partition(f"\n{title}\n")[2].partition("\n\n")[0]
