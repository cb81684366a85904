"""What a kernel reads, writes and computes, on programs as XLA prints them."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import pytest
from jax import lax

from benchmarks.compiled.hlo import parse
from benchmarks.compiled.kernels import by_class, kernels, scattered_twice

TPU = """
%other (x: f32[8]) -> f32[8] {
  %x.1 = f32[8]{0} parameter(0)
  ROOT %y.1 = f32[8]{0} add(%x.1, %x.1)
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0:T(256)} parameter(0)
  %chip = f32[16]{0:T(256)S(1)} parameter(1)
LINE
}
"""


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("  %y = f32[8]{0:T(256)} fusion(%x, %chip), kind=kLoop, calls=%other", 32 + 32),
        ("  ROOT %y = f32[8]{0:T(256)S(1)} fusion(%chip), kind=kLoop, calls=%other", 0),
        ("  %y = (f32[8]{0}, /*index=1*/bf16[4]{0}) fusion(%chip), calls=%other", 32 + 8),
        ("  %y = (f32[8]{0:S(1)}, f32[8]{0}, u32[]{:S(2)}) copy-start(%x)", 32),
        ("  %y = (f32[8]{0}, f32[8]{0}, u32[]{:S(2)}) copy-start(%x)", 64),
        ("  %y = ((f32[8]{0}), f32[2]{0:S(1)}, s32[]{:S(2)}) slice-start(%x), slice={[0:2]}", 8),
        ("  %y = f32[8]{0:S(1)} copy-done(%z)", 0),
        ("  %y = f32[8]{0} bitcast(%x)", 0),
        ("", 0),
    ],
)
def test_only_main_memory_counts(line, size):
    assert sum(kernel.bytes for kernel in kernels(parse(TPU.replace("LINE", line)))) == size


GPU = (Path(__file__).parents[1] / "programs" / "gpu.hlo").read_text()


def test_kernels_of_a_gpus_program():
    found = {kernel.name: kernel for kernel in kernels(parse(GPU))}
    maps, image, kernel = 2 * 2 * 8 * 8 * 16, 2 * 2 * 16 * 16 * 3, 2 * 16 * 3 * 3 * 3
    flop = 2 * (2 * 8 * 8 * 16) * 3 * 3 * 3
    for name, kind, read, written in (
        ("conv.1", "convolution forward", image + kernel, maps),
        ("wgrad.1", "convolution kernel gradient", image + maps, kernel),
        ("dgrad.1", "convolution input gradient", maps + kernel, image),
    ):
        each = found[name]
        assert (each.kind, each.read, each.written, each.flop) == (kind, read, written, flop)
    assert found["stats.1"][1:5] == ("batch norm statistics", maps, 4 * 16, 0)
    assert found["stats.1"].source == "ops/norm.py:1 normalise"


@pytest.mark.parametrize(
    "how",
    [
        {"window_strides": (1, 1), "padding": "SAME"},
        {"window_strides": (2, 2), "padding": ((3, 2), (1, 0))},
        {"window_strides": (1, 2), "padding": ((1, 1), (0, 4)), "lhs_dilation": (2, 1)},
        {"window_strides": (1, 1), "padding": ((2, 0), (-1, 2)), "rhs_dilation": (3, 2)},
        {"window_strides": (1, 1), "padding": "SAME", "feature_group_count": 2},
        # Products of small matrices as a TPU has them: one in nine taps meets a pixel.
        {"window_strides": (8, 8), "padding": ((8, 8), (8, 8)), "lhs_dilation": (9, 9)},
    ],
)
def test_the_arithmetic_of_a_convolution_is_that_of_xlas_cost_analysis(how):
    channels = 4 // how.get("feature_group_count", 1)
    shapes = [
        jax.ShapeDtypeStruct(shape, "float32") for shape in ((2, 9, 9, 4), (3, 3, channels, 6))
    ]
    order = ("NHWC", "HWIO", "NHWC")
    convolve = jax.jit(partial(lax.conv_general_dilated, dimension_numbers=order, **how))
    program: Any = convolve.lower(*shapes).compile()
    counted = sum(kernel.flop for kernel in kernels(parse(program.as_text())))
    assert counted == program.cost_analysis()["flops"] > 0


def test_an_array_under_two_names_is_read_once():
    gram = next(kernel for kernel in kernels(parse(GPU)) if kernel.name == "gram.1")
    assert (gram.kind, gram.read) == ("batch norm statistics", 2 * 2 * 8 * 8 * 16)
    assert gram.flop == 2 * 16 * 16 * 128


def test_of_what_is_cut_the_pieces_are_read_and_loops_run_as_often_as_known():
    found = {kernel.name: kernel for kernel in kernels(parse(GPU))}
    assert (found["cut.1"].read, found["cut.1"].written) == (40, 40)
    assert (found["next.1"].times, found["next.1"].bytes) == (5, 5 * 64)


@pytest.mark.parametrize(
    ("inside", "read"),
    [
        ("%half.1 = f32[1000]{0} divide(%p.4, %p.4)", 40),
        ("%half.1 = f32[1000]{0} reverse(%p.4), dimensions={0}", 4000),
        ("%half.1 = f32[1000]{0} bitcast(%p.4)", 40),
    ],
)
def test_of_what_is_cut_from_a_result_element_by_element_the_pieces_are_read(inside, read):
    program = GPU.replace("slice(%p.4)", "slice(%half.1)").replace(
        "  ROOT %slice.1", f"  {inside}\n  ROOT %slice.1"
    )
    found = {kernel.name: kernel for kernel in kernels(parse(program))}
    assert found["cut.1"].read == read
    whole = GPU.replace("ROOT %slice.1 = f32[10]{0} slice(%p.4)", "ROOT %x = f32[10]{0} add(%p.4)")
    assert {k.name: k for k in kernels(parse(whole))}["cut.1"].read == 4000


def test_the_least_time_is_the_longest_of_three():
    conv = next(kernel for kernel in kernels(parse(GPU)) if kernel.name == "conv.1")
    given = {"flop_per_s": 1e12, "bytes_per_s": 1e12, "launch_s": 0.0}
    assert conv.seconds(**given | {"flop_per_s": conv.flop}) == 1.0
    assert conv.seconds(**given | {"bytes_per_s": conv.bytes / 2}) == 2.0
    assert conv.seconds(**given | {"launch_s": 3.0}) == 3.0


def test_classes_hold_every_kernel():
    found = kernels(parse(GPU))
    assert sum(map(len, by_class(found).values())) == len(found)


def test_scatters_that_may_add_twice_are_named():
    assert scattered_twice(parse(GPU)) == ["scatter.1 (ops/norm.py:1 normalise)"]
    unique = GPU.replace("to_apply=%sum, meta", "unique_indices=true, meta")
    assert scattered_twice(parse(unique)) == []
