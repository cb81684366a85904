"""The messages between devices that a compiled program holds, read from its text."""

import re
from typing import NamedTuple

from benchmarks.compiled.hlo import bytes_of, shapes_of

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

# `%name = SHAPE all-reduce(...)`; between the name and the operation no other "=" may stand.
_CALL = re.compile(rf" = ([^=]*?) ({'|'.join(KINDS)})(-start)?\(")
_COMMENT = re.compile(r"/\*.*?\*/")


class Collective(NamedTuple):
    """All operations of one kind: how many, and the bytes of their results on one device."""

    count: int
    bytes: int


def summarise(hlo_text: str) -> dict[str, Collective]:
    """Collectives of an optimised HLO module (`compiled.as_text()`), for every kind of `KINDS`.

    An asynchronous operation counts once, where it starts. An operation on several arrays at once
    (fused gradients) is one with the bytes of all of them; one inside a loop counts once too,
    however often the loop runs.
    """
    found: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for line in hlo_text.splitlines():
        if call := _CALL.search(_COMMENT.sub("", line)):
            shape, kind, start = call.groups()
            # Of all-reduces only those of several arrays on GPUs name their operands too.
            doubled = start and (kind != "all-reduce" or shape.startswith("(("))
            found[kind].append(_bytes(_result(shape) if doubled else shape))
    return {kind: Collective(len(sizes), sum(sizes)) for kind, sizes in found.items()}


def _result(shape: str) -> str:
    """The results in the shape of an asynchronous start: (operands, results, more...)."""
    parts, depth = [""], 0
    for letter in shape[1:-1]:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts[1]


def _bytes(shape: str) -> int:
    """The size of all arrays that a shape names, in whatever memory, without padding."""
    return sum(bytes_of(each.dtype, each.elements) for each in shapes_of(shape))
