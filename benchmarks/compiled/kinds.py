"""Which part of the training step a kernel of its compiled program is."""

from collections.abc import Sequence

from benchmarks.compiled.hlo import COLLECTIVES, MOVES, SILENT, Instruction, Module

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
# Sources below `jaxres` by which kernels are told apart.
RENDERING = ("image/", "data/")
POOLING = "ops/pool.py"
FOLDED_NORM = "ops/folded_norm.py"
NORMS = ("ops/norm.py", FOLDED_NORM, "ops/pooled_norm.py")


def kind(module: Module, instruction: Instruction, inner: Sequence[Instruction]) -> str:
    """Its class, one of `CLASSES`; `inner` is the kernel and what is fused into it."""
    opcodes = {each.opcode for each in inner}
    backward = any("transpose(" in each.op_name for each in inner)
    files = {module.source(each).partition(":")[0] for each in inner}
    if instruction.opcode.startswith(COLLECTIVES):
        return "collectives"
    if (which := _product(module, instruction, inner, files)) is not None:
        return which
    if opcodes & {"reduce-window", "select-and-scatter", "scatter"} or POOLING in files:
        return "pooling"
    if any(name.startswith(RENDERING) for name in files):
        return "rendering"
    if opcodes <= MOVES | {*SILENT, "convert", "slice-start", "fusion"}:
        return "casts and copies"
    if not any("jvp(" in each.op_name for each in inner):
        return "optimiser" if any(each.op_name for each in inner) else "casts and copies"
    if files.intersection(NORMS):
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
    if where == FOLDED_NORM and "dot_general" in main.op_name:
        if not backward:
            return "batch norm statistics"
        return "convolution kernel gradient"
    if where == FOLDED_NORM and main.op_name.endswith("dot"):
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
    """Of a TPU's convolutions: a kernel has fewer elements than images and their gradients."""
    for body in module.computations.values():
        if convolution.name in body:
            sizes = [
                sum(s.elements for s in body[name].shapes) for name in convolution.operands[:2]
            ]
            result = sum(shape.elements for shape in convolution.shapes)
            return "kernel" if result < min(sizes) else "input"
    return "input"
