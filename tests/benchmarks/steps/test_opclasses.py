import jax
import jax.numpy as jnp
import pytest

from benchmarks.compiled.program import CLASSES, operations
from benchmarks.steps import opclasses
from benchmarks.steps.opclasses import Event
from jaxres.ops import pool
from jaxres.ops.conv import conv2d

FUSED = """\
HloModule jit_step, is_scheduled=true

FileNames
1 "/somewhere/run.py"
2 "/somewhere/jaxres/ops/conv.py"

FunctionNames
1 "<module>"
2 "conv2d.<locals>.inner"

FileLocations
1 {file_name_id=1 function_name_id=1 line=4 end_line=4 column=2 end_column=77}
2 {file_name_id=2 function_name_id=2 line=273 end_line=273 column=2 end_column=77}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}
3 {file_location_id=1 parent_frame_id=3}


%fused_dot (param_0: f32[4,4]) -> f32[4,4] {
  %param_0 = f32[4,4]{1,0} parameter(0)
  ROOT %dot.1 = f32[4,4]{1,0} dot(%param_0, %param_0), metadata={op_name="a" stack_frame_id=3}
}

%fused_layout (param_0.1: f32[4,2]) -> f32[2,4] {
  %param_0.1 = f32[4,2]{1,0} parameter(0)
  %copy.9 = f32[4,2]{0,1} copy(%param_0.1)
  ROOT %transpose.1 = f32[2,4]{1,0} transpose(%copy.9), dimensions={1,0}
}

%body (p: f32[4]) -> f32[4] {
  %p = f32[4]{0} parameter(0)
  ROOT %add.1 = f32[4]{0} add(%p, %p)
}

ENTRY %main.1 (x: f32[4,4]) -> f32[4,4] {
  %x = f32[4,4]{1,0:T(8,128)} parameter(0), metadata={op_name="x"}
  %fusion.1 = f32[4,4]{1,0} fusion(%x), kind=kCustom, calls=%fused_dot
  %fusion.2 = f32[2,4]{1,0} fusion(%x), kind=kLoop, calls=%fused_layout
  %cudnn.1 = (bf16[8,7]{1,0}, u8[0]{0}) custom-call(%x), custom_call_target="__cudnn$convForward"
  %cublas.1 = f32[4,4]{1,0} custom-call(%x), custom_call_target="__cublas$lt$matmul"
  %ar.1 = f32[4,4]{1,0} all-reduce-start(%x), to_apply=%body
  %loop.1 = f32[4]{0} while(%x), condition=%body, body=%body
  ROOT %sine.1 = f32[4,4]{1,0} sine(%x), metadata={op_name="b" stack_frame_id=2}
}
"""


def test_operations_are_classed_by_what_their_fusions_hold():
    found = operations(FUSED)
    kinds = {name: operation.kind for name, operation in found.items()}
    assert kinds["fusion.1"] == kinds["cublas.1"] == "product"
    assert kinds["fusion.2"] == "copy"
    assert kinds["cudnn.1"] == "convolution"
    assert kinds["ar.1"] == "collective"
    assert kinds["sine.1"] == "elementwise"
    assert [name for name, operation in found.items() if operation.container] == ["loop.1"]
    assert found["cudnn.1"].shape == "bf16[8,7]"


def test_the_line_is_the_innermost_of_the_package():
    found = operations(FUSED)
    assert found["sine.1"].source == "ops/conv.py:273 inner"
    assert (found["fusion.1"].source, found["fusion.1"].op_name) == ("ops/conv.py:273 inner", "a")
    assert found["fusion.2"].source == ""


def test_classes_of_a_program_compiled_here():
    def network(images, kernel, weights):
        maps = pool.average_pool(conv2d(images, kernel, padding=1), window=2, stride=2)
        return jnp.sin(maps.mean((1, 2)) @ weights).T.copy()

    shapes = [(4, 16, 16, 3), (3, 3, 3, 8), (8, 5)]
    compiled = jax.jit(network).lower(*[jnp.ones(shape) for shape in shapes]).compile()
    found = operations(compiled.as_text() or "")
    kinds = {operation.kind for operation in found.values()}
    assert {"convolution", "pooling", "product", "reduction", "elementwise"} <= kinds
    assert kinds <= set(CLASSES)
    sources = {each.source for each in found.values() if each.kind == "convolution"}
    assert any(source.startswith("ops/lowerings.py:") for source in sources)


def test_each_moment_is_shared_by_what_runs_in_it():
    events = [
        Event("a", 0, 10, 10),
        Event("b", 5, 15, 15),
        Event("c", 20, 21, 30),  # goes on in the background until 30
        Event("d", 24, 26, 26),
    ]
    busy, idle = opclasses.shares(events)
    assert busy == {"a": 7.5, "b": 7.5, "c": 8, "d": 2}
    assert idle == 5


def test_of_two_in_the_background_the_later_has_the_moment():
    busy, idle = opclasses.shares([Event("a", 0, 1, 9), Event("b", 4, 5, 8)])
    assert (dict(busy), idle) == ({"a": 1 + 3 + 1, "b": 4}, 0)


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("ncclDevKernel_AllReduce_Sum_f32", "collective"),
        ("sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32", "convolution"),
        ("nvjet_hsh_128x256_64x4_2x1_v_bz_coopA_NNT", "product"),
        ("MemcpyD2D", "copy"),
        ("input_reduce_fusion_12", "reduction"),
        ("loop_add_fusion", "elementwise"),
        ("mystery", "other"),
    ],
)
def test_kernels_outside_of_the_program_are_classed_by_name(kernel, kind):
    assert opclasses.of_kernel(kernel).kind == kind
