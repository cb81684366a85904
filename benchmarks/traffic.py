"""Bytes that a compiled TPU program moves to and from its main memory, read from its text.

The compiler's own count, `cost_analysis()["bytes accessed"]`, also holds what stays in on-chip
memory, and the copies there: 18.8 GB for a ResNet-50 step of 18 pictures of 224 px on a v5e, of
which 3.1 GB pass through main memory.
"""

import re

from benchmarks.collectives import bytes_of

ON_CHIP = re.compile(r"S\(\d+\)")  # the memory space of a layout; main memory's is not written
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?")
_INSTRUCTION = re.compile(r"\s*(?:ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([a-z][\w\-]*)\((.*)")
_COMMENT = re.compile(r"/\*.*?\*/")

# Names for what is there already, and the ends of copies that are counted where they start. A loop
# hands its arrays through in place (the one of our step cuts the crops, 0.1 % of the traffic).
FREE = (
    "bitcast",
    "constant",
    "copy-done",
    "get-tuple-element",
    "parameter",
    "slice-done",
    "tuple",
    "while",
)
COPIES = ("copy-start", "slice-start")

Array = tuple[int, bool]  # bytes, and whether in main memory


def main_memory_bytes(hlo_text: str) -> int:
    """What the instructions of the entry computation read from main memory and write to it.

    Every instruction is taken to read each of its operands once and whole.
    """
    arrays: dict[str, list[Array]] = {}
    total = 0
    for line in hlo_text[hlo_text.index("\nENTRY ") :].splitlines():
        found = _INSTRUCTION.match(_COMMENT.sub("", line))
        if not found:
            continue
        name, shape, operation, rest = found.groups()
        arrays[name] = results = _arrays(shape)
        if operation in COPIES:
            total += _copied(results)
        elif operation not in FREE:
            operands = re.findall(r"%([\w.\-]+)", rest.partition("), ")[0])
            read = [array for operand in operands for array in arrays.get(operand, [])]
            total += sum(size for size, in_main in results + read if in_main)
    return total


def _copied(results: list[Array]) -> int:
    """A copy's two ends and its context: as much as the smaller end, at each end in main memory."""
    (one, one_in_main), (other, other_in_main) = results[:2]
    return min(one, other) * (one_in_main + other_in_main)


def _arrays(shape: str) -> list[Array]:
    return [
        (bytes_of(dtype, sizes), not ON_CHIP.search(layout or ""))
        for dtype, sizes, layout in _ARRAY.findall(shape)
    ]
