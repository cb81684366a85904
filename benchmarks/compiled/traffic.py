"""What a kernel of a compiled program reads from main memory and writes to it.

The arrays it writes and the distinct arrays it reads, each once and whole; of an array that it only
cuts pieces from, the pieces.
"""

import re
from collections.abc import Iterator

from benchmarks.compiled.hlo import ALIASES, Computation, Instruction, Module, Shape

COPIES = ("copy-start", "slice-start")
CUTS = ("slice", "dynamic-slice", "gather")
# What is computed of the pieces alone that are cut from it.
ELEMENTWISE = ("add", "convert", "divide", "multiply", "negate", "select", "subtract")


def traffic(module: Module, body: Computation, instruction: Instruction) -> tuple[int, int]:
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
