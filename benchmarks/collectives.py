"""The messages between devices that a compiled program holds, read from its text."""

import math
import re
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

# `%name = SHAPE all-reduce(...)`; between the name and the operation no other "=" may stand.
_CALL = re.compile(rf" = ([^=]*?) ({'|'.join(KINDS)})(-start)?\(")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\]")
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
            asynchronous = start and kind != "all-reduce"
            found[kind].append(_bytes(_result(shape) if asynchronous else shape))
    return {kind: Collective(len(sizes), sum(sizes)) for kind, sizes in found.items()}


def _result(shape: str) -> str:
    """The results in the shape of an asynchronous start: (operands, results, more...).

    Only all-reduce-start has the shape of its result alone.
    """
    parts, depth = [""], 0
    for letter in shape[1:-1]:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts[1]


def _bytes(shape: str) -> int:
    """The size of all arrays that a shape names, without padding."""
    return (
        sum(
            math.prod(int(size) for size in sizes.split(",") if size) * _bits(dtype)
            for dtype, sizes in _ARRAY.findall(shape)
        )
        // 8
    )


def _bits(dtype: str) -> int:
    """Width of an element: the first number in its name (f32, bf16, f8e4m3fn); a pred is a byte."""
    if dtype == "token":
        return 0
    width = re.search(r"\d+", dtype)
    return int(width[0]) if width else 8
