import pytest

from benchmarks.convolutions import bound
from benchmarks.convolutions.traced import convolutions
from benchmarks.timing.roof import Roof
from jaxres.ops.conv import Geometry

CONV = Geometry(2, (8, 8), 6, (3, 3), 10, (2, 2), ((1, 1), (1, 1)), 2, "bfloat16")


@pytest.fixture(scope="module")
def resnet50():
    """The convolutions of ResNet-50 at 224 px, batch 256."""
    return convolutions("resnet50", 224, 256, "bfloat16")


def test_flop_and_bytes_of_a_grouped_convolution():
    assert bound.flop_of(CONV) == 2 * (2 * 4 * 4) * 10 * (9 * 3)
    assert bound.bytes_of(CONV) == (2 * 2 * 64 * 6, 2 * 27 * 10, 2 * 2 * 16 * 10)


def test_a_step_is_three_passes_but_two_for_the_first_and_the_batch_norms():
    second = CONV._replace(dtype="float32")
    roof = Roof(matmul_tflops=1e6, copy_gbs=1e-9)  # bytes alone count: one second each
    one, two = sum(bound.bytes_of(CONV)), sum(bound.bytes_of(second))
    passes = 8 * (bound.bytes_of(CONV)[2] + 3 * bound.bytes_of(second)[2])
    seconds = bound.step_seconds({CONV: 1, second: 3}, roof)
    assert seconds == pytest.approx(2 * one + 3 * 3 * two + passes)


def test_arithmetic_alone_is_the_published_figure(resnet50):
    """24.3 GFLOP per training image of ResNet-50 at 224 px at 790 TFLOP/s: 32,500 a second."""
    roof = Roof(matmul_tflops=790, copy_gbs=1e12)
    assert 256 / bound.step_seconds(resnet50, roof) == pytest.approx(32_500, rel=0.01)


def test_traffic_of_resnet50_is_the_published_figure(resnet50):
    """10.66 and 11.11 million values per image are read and written by the convolutions."""
    images, _, outputs = (
        sum(bound.bytes_of(geometry)[part] * times / 512 for geometry, times in resnet50.items())
        for part in range(3)
    )
    assert images == pytest.approx(10.66e6, rel=1e-3)
    assert outputs == pytest.approx(11.11e6, rel=1e-3)


def test_limit_of_resnet50_is_a_little_above_that_with_residuals_and_pooling(resnet50):
    """10,900 images a second with them, at 790 TFLOP/s and 4.3 TB/s."""
    images_per_s = 256 / bound.step_seconds(resnet50, Roof(matmul_tflops=790, copy_gbs=4300))
    assert 10_900 < images_per_s < 1.15 * 10_900
