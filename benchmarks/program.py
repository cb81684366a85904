"""A compiled program's operations by name: the class of each and the line of ours it came from."""

import re
from typing import NamedTuple

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
SILENT = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}
CONTAINERS = {"while", "call", "conditional"}  # their inner operations are measured on their own
CLASSES = (
    "convolution",
    "product",
    "pooling",
    "reduction",
    "elementwise",
    "copy",
    "collective",
    "other",
)


class Operation(NamedTuple):
    """An operation of a compiled program.

    `shape` is its result's (`f32[8,16]`, of several the first), `op_name` JAX's name for it
    (`jit(step)/transpose(jvp())/dot_general`), `source` the innermost line of the package that it
    was traced from (`ops/conv.py:306 _dot`), "" if unknown.
    """

    kind: str
    shape: str
    op_name: str
    source: str
    container: bool


class _Instruction(NamedTuple):
    opcode: str
    shape: str
    target: str
    called: tuple[str, ...]
    op_name: str
    frame: int | None


def operations(text: str) -> dict[str, Operation]:
    """The operations of `Compiled.as_text()`, fused ones under the name of their fusion."""
    computations, names = _computations(text), _sources(text)
    found = {}
    for body in computations.values():
        for name, instruction in body.items():
            inner = [instruction, *_inside(instruction, computations)]
            first = next((each for each in inner if each.op_name), instruction)
            frame = next((each.frame for each in inner if each.frame is not None), None)
            found[name] = Operation(
                kind=_kind(inner),
                shape=instruction.shape,
                op_name=first.op_name,
                source=names.get(frame, "") if frame is not None else "",
                container=instruction.opcode in CONTAINERS,
            )
    return found


def _kind(inner: list[_Instruction]) -> str:
    """By the heaviest operation inside."""
    opcodes = {each.opcode for each in inner}
    targets = " ".join(each.target for each in inner).lower()
    if any(opcode.startswith(COLLECTIVES) for opcode in opcodes):
        return "collective"
    if "convolution" in opcodes or "conv" in targets:
        return "convolution"
    if "dot" in opcodes or any(word in targets for word in ("gemm", "matmul", "dot")):
        return "product"
    if opcodes & {"reduce-window", "select-and-scatter"}:
        return "pooling"
    if "reduce" in opcodes:
        return "reduction"
    opcodes -= {*SILENT, "fusion"}
    if opcodes <= MOVES:
        return "copy"
    return "elementwise" if inner[0].opcode == "fusion" or len(inner) == 1 else "other"


def _computations(text: str) -> dict[str, dict[str, _Instruction]]:
    found: dict[str, dict[str, _Instruction]] = {}
    body: dict[str, _Instruction] = {}
    for line in text.splitlines():
        if heading := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            body = found.setdefault(heading[1], {})
        elif given := re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*)", line):
            body[given[1]] = _instruction(given[2])
    return found


def _instruction(text: str) -> _Instruction:
    opcode = re.search(r"(?:^|\s)([a-z][a-z0-9\-]*)\(", text)
    shape = re.match(r"\(*(\w+\[[\d,]*\])", text)
    target = re.search(r'custom_call_target="([^"]*)"', text)
    called = re.findall(r"(?:calls|body|to_apply)=%?([\w.\-]+)", text)
    op_name = re.search(r'op_name="([^"]*)"', text)
    frame = re.search(r"stack_frame_id=(\d+)", text)
    return _Instruction(
        opcode=opcode[1] if opcode else "",
        shape=shape[1] if shape else "",
        target=target[1] if target else "",
        called=tuple(called),
        op_name=op_name[1] if op_name else "",
        frame=int(frame[1]) if frame else None,
    )


def _inside(
    instruction: _Instruction, computations: dict[str, dict[str, _Instruction]]
) -> list[_Instruction]:
    """What a fusion or call holds, its result first."""
    if instruction.opcode not in ("fusion", "call", "while"):
        return []
    found = []
    for name in instruction.called:
        for inner in reversed(computations.get(name, {}).values()):
            found += [inner, *_inside(inner, computations)]
    return found


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
