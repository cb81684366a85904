"""The arithmetic of a compiled program's convolutions and products, 2 FLOP per multiply-add."""

import math
import re

from benchmarks.compiled.hlo import Computation, Instruction, Module


def flop(module: Module, body: Computation, instruction: Instruction) -> float:
    """Of the convolutions and products of a kernel, 2 per multiply-add."""
    total = _of_one(instruction, body)
    for name in instruction.called if instruction.opcode == "fusion" else ():
        fused = module.computations.get(name, {})
        total += sum(flop(module, fused, inner) for inner in fused.values())
    return total


def _of_one(instruction: Instruction, body: Computation) -> float:
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
