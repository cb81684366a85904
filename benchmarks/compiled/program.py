"""A compiled program's operations by name: the class of each and the line of ours it came from."""

from typing import NamedTuple

from benchmarks.compiled.hlo import COLLECTIVES, MOVES, Instruction, parse

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


def operations(text: str) -> dict[str, Operation]:
    """The operations of `Compiled.as_text()`, fused ones under the name of their fusion."""
    module = parse(text)
    found = {}
    for body in module.computations.values():
        for name, instruction in body.items():
            inner = [instruction, *module.inside(instruction)]
            first = next((each for each in inner if each.op_name), instruction)
            framed = next((each for each in inner if each.frame is not None), instruction)
            shape = instruction.shapes[:1]
            found[name] = Operation(
                kind=_kind(inner),
                shape="".join(f"{each.dtype}[{','.join(map(str, each.sizes))}]" for each in shape),
                op_name=first.op_name,
                source=module.source(framed),
                container=instruction.opcode in CONTAINERS,
            )
    return found


def _kind(inner: list[Instruction]) -> str:
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
