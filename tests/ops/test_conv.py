"""Every lowering computes the same convolution and the same gradients as a float64 reference."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax.sharding import PartitionSpec as P

from jaxres.ops import conv, winograd
from jaxres.ops.conv import LOWERINGS, Choice, choose, conv2d, force_lowering

TOLERANCE = {"float32": 2e-5, "bfloat16": 3e-2}


def reference(images, kernel, cotangent, stride, padding, groups):
    """Convolution and both gradients by loops over the kernel, in float64 NumPy."""
    images, kernel, cotangent = (np.asarray(a, np.float64) for a in (images, kernel, cotangent))
    padded = np.pad(images, ((0, 0), *padding, (0, 0)))
    to_padded, to_kernel = np.zeros_like(padded), np.zeros_like(kernel)
    outputs = np.zeros(cotangent.shape)
    channels, features = images.shape[3] // groups, kernel.shape[3] // groups
    height, width = cotangent.shape[1:3]
    places = itertools.product(range(kernel.shape[0]), range(kernel.shape[1]), range(groups))
    for y, x, group in places:
        rows = slice(y, y + (height - 1) * stride[0] + 1, stride[0])
        columns = slice(x, x + (width - 1) * stride[1] + 1, stride[1])
        inputs = slice(group * channels, (group + 1) * channels)
        results = slice(group * features, (group + 1) * features)
        tap, matrix = padded[:, rows, columns, inputs], kernel[y, x][:, results]
        outputs[..., results] += tap @ matrix
        to_padded[:, rows, columns, inputs] += cotangent[..., results] @ matrix.T
        to_kernel[y, x][:, results] += np.tensordot(
            tap, cotangent[..., results], axes=((0, 1, 2), (0, 1, 2))
        )
    (top, _), (left, _) = padding
    size = images.shape[1:3]
    return outputs, to_padded[:, top : top + size[0], left : left + size[1]], to_kernel


def check(images, kernel, *, stride, padding, groups):
    """Compare conv2d, forward and backward, with the reference."""

    def convolve(images, kernel):
        return conv2d(images, kernel, stride=stride, padding=padding, groups=groups)

    @jax.jit
    def run(images, kernel, cotangent):
        outputs, pull = jax.vjp(convolve, images, kernel)
        return outputs, *pull(cotangent)

    shape = jax.eval_shape(convolve, images, kernel).shape
    cotangent = jnp.asarray(np.random.default_rng(0).standard_normal(shape), images.dtype)
    expected = reference(images, kernel, cotangent, stride, padding, groups)
    for found, wanted in zip(run(images, kernel, cotangent), expected, strict=True):
        assert found.dtype == images.dtype
        scale = max(np.abs(wanted).max(), 1e-3)
        error = np.abs(np.asarray(found, np.float64) - wanted).max() / scale
        assert error < TOLERANCE[images.dtype.name]


def draw_arrays(shape, kernel_shape, dtype):
    rng = np.random.default_rng(1)
    return (jnp.asarray(rng.standard_normal(s), dtype) for s in (shape, kernel_shape))


extents = st.integers(1, 4)
pads = st.tuples(st.integers(0, 2), st.integers(0, 2))


@settings(max_examples=7, deadline=None)
@given(
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    window=st.tuples(extents, extents),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(pads, pads),
    groups=st.sampled_from([1, 2]),
    dtype=st.sampled_from(["float32", "bfloat16"]),
    name=st.sampled_from(["xla", "patches", "parts"]),
)
def test_general_lowerings(size, window, stride, padding, groups, dtype, name):
    assume(all(s + sum(p) >= w for s, p, w in zip(size, padding, window, strict=True)))
    images, kernel = draw_arrays((2, *size, 4), (*window, 4 // groups, 6), dtype)
    with force_lowering(name):
        check(images, kernel, stride=stride, padding=padding, groups=groups)


@settings(max_examples=4, deadline=None)
@given(
    size=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    window=st.tuples(extents, extents),
    stride=st.tuples(st.integers(2, 3), st.integers(2, 3)),
    padding=st.tuples(pads, pads),
    dtype=st.sampled_from(["float32", "bfloat16"]),
    name=st.sampled_from(["space_to_depth", "four_channels"]),
)
def test_stem_lowerings(size, window, stride, padding, dtype, name):
    images, kernel = draw_arrays((2, *size, 3), (*window, 3, 6), dtype)
    with force_lowering(name):
        check(images, kernel, stride=stride, padding=padding, groups=1)


@settings(max_examples=4, deadline=None)
@given(
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)
def test_dot(size, stride, dtype):
    images, kernel = draw_arrays((2, *size, 5), (1, 1, 5, 3), dtype)
    with force_lowering("dot"):
        check(images, kernel, stride=stride, padding=((0, 0), (0, 0)), groups=1)


@pytest.mark.slow
@settings(max_examples=5, deadline=None)
@given(
    size=st.tuples(st.integers(3, 7), st.integers(3, 7)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(pads, pads),
    copies=st.sampled_from([1, 2]),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)
def test_shifted(size, stride, padding, copies, dtype):
    images, kernel = draw_arrays((2, *size, 4), (3, 3, 1, 4 * copies), dtype)
    with force_lowering("shifted"):
        check(images, kernel, stride=stride, padding=padding, groups=4)


@pytest.mark.slow
@settings(max_examples=2, deadline=None)
@given(
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    padding=st.tuples(pads, pads),
    images_per_group=st.sampled_from([1, 4]),
)
def test_winograd(size, padding, images_per_group):
    images, kernel = draw_arrays((4, *size, 3), (3, 3, 3, 5), "float32")
    with pytest.MonkeyPatch.context() as patch:
        if images_per_group == 1:
            patch.setattr(winograd, "GROUP_BYTES", 1)
            patch.setattr(winograd, "GROUP_TILES", 1)
        with force_lowering("winograd"):
            check(images, kernel, stride=(1, 1), padding=padding, groups=1)


@pytest.mark.parametrize(
    ("batch", "size", "kernel", "stride", "groups", "expected"),
    [
        (2, 8, (1, 1, 4, 8), 2, 1, Choice("dot", "dot", "dot")),
        (2, 8, (3, 3, 1, 8), 1, 8, Choice("shifted", "shifted", "shifted")),
        (2, 8, (3, 3, 4, 8), 1, 2, Choice("xla", "xla", "xla")),
        (6, 8, (7, 7, 3, 8), 2, 1, Choice("xla", "patches", "parts")),
        (2, 2, (3, 3, 64, 64), 1, 1, Choice("patches", "patches", "xla")),
        (2, 4, (3, 3, 8, 8), 2, 1, Choice("xla", "patches", "xla")),
        (8, 6, (3, 3, 64, 64), 1, 1, Choice("winograd", "winograd", "winograd")),
        (2, 4, (3, 3, 16, 16), 1, 1, Choice("xla", "xla", "xla")),
    ],
)
def test_rules_choose_and_stay_exact(batch, size, kernel, stride, groups, expected):
    window = kernel[0]
    padding = ((window // 2, window // 2), (window // 2, window // 2))
    images, weights = draw_arrays((batch, size, size, kernel[2] * groups), kernel, "float32")
    geometry = conv._geometry(images, weights, stride, padding, groups)
    assert choose(geometry, "cpu") == expected
    assert choose(geometry, "gpu") == choose(geometry, "tpu") == Choice("xla", "xla", "xla")
    check(images, weights, stride=(stride, stride), padding=padding, groups=groups)


def test_same_padding_halves_rounding_up():
    images, kernel = draw_arrays((1, 7, 8, 2), (3, 3, 2, 4), "float32")
    outputs = conv2d(images, kernel, stride=2, padding="SAME")
    assert outputs.shape == (1, 4, 4, 4)
    np.testing.assert_allclose(
        outputs, conv2d(images, kernel, stride=2, padding=((1, 1), (0, 1))), rtol=1e-5
    )


@pytest.mark.slow
def test_gradient_of_a_replicated_kernel_sums_over_devices():
    images, kernel = draw_arrays((64, 4, 4, 64), (3, 3, 64, 64), "float32")
    mesh = jax.make_mesh((4,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])

    def gradient(kernel, images):
        return jax.grad(lambda k: jnp.square(conv2d(images, k, padding=1)).sum())(kernel)

    split = jax.shard_map(gradient, mesh=mesh, in_specs=(P(), P("data")), out_specs=P())
    whole = jax.jit(gradient)(kernel, images)
    error = jnp.abs(jax.jit(split)(kernel, images) - whole).max() / jnp.abs(whole).max()
    assert error < 1e-5


def test_forced_lowering_ends_with_its_context():
    images, kernel = draw_arrays((1, 4, 4, 2), (1, 1, 2, 2), "float32")

    def program():
        return str(jax.make_jaxpr(lambda *a: conv2d(*a))(images, kernel))

    with force_lowering("xla"):
        assert "conv_general_dilated" in program()
    assert "conv_general_dilated" not in program()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "wide", "narrow"),
    [
        (28, (3, 3, 32, 64), 2, "xla", "patches"),
        (28, (3, 3, 8, 16), 1, "xla", "parts"),
        (28, (5, 5, 32, 64), 1, "xla", "parts"),
        (28, (3, 3, 3, 64), 2, "parts", "parts"),
        (16, (3, 3, 64, 128), 2, "xla", "xla"),
        (28, (3, 3, 64, 64), 1, "winograd", "winograd"),
    ],
)
def test_kernel_gradients_follow_the_vectors_of_the_processor(
    monkeypatch, size, kernel, stride, wide, narrow
):
    images, weights = draw_arrays((2, size, size, kernel[2]), kernel, "float32")
    pad = (kernel[0] // 2, kernel[0] // 2)
    padding = (pad, pad)
    geometry = conv._geometry(images, weights, stride, padding, 1)
    for has_avx512, expected in ((True, wide), (False, narrow)):
        monkeypatch.setattr(conv, "_has_avx512", lambda known=has_avx512: known)
        assert choose(geometry, "cpu").kernel_gradient == expected
    check(images, weights, stride=(stride, stride), padding=padding, groups=1)


@pytest.mark.parametrize(
    ("flags", "wide"),
    [
        ("flags : fpu avx avx2 avx512f", True),
        ("flags : fpu avx avx2 bmi2", False),
        ("Features : fp asimd sve", True),
        (None, True),
    ],
)
def test_processors_without_avx512_are_known(monkeypatch, tmp_path, flags, wide):
    info = tmp_path / "cpuinfo"
    if flags is not None:
        info.write_text(flags)
    monkeypatch.setattr(conv, "Path", lambda path: info)
    assert conv._has_avx512.__wrapped__() is wide


def test_preferred_lowering_leaves_the_rest_to_the_rules():
    stem, other = draw_arrays((2, 8, 8, 3), (3, 3, 3, 8), "float32")
    deep, one_by_one = draw_arrays((2, 8, 8, 4), (1, 1, 4, 8), "float32")

    def program(images, kernel, **options):
        return str(jax.make_jaxpr(lambda *a: conv2d(*a, **options))(images, kernel))

    rules = program(deep, one_by_one)
    with conv.prefer_lowering("space_to_depth"):
        assert "conv_general_dilated" in (by_blocks := program(stem, other, stride=2, padding=1))
        assert "f32[2,2,12,8]" in by_blocks  # the kernel of blocks of 2x2 pixels of 3 channels
        assert program(deep, one_by_one) == rules
    with pytest.raises(ValueError, match="unknown lowering 'fft'"), conv.prefer_lowering("fft"):
        pass


def test_mistakes_are_named():
    images, kernel = draw_arrays((1, 4, 4, 2), (3, 3, 2, 2), "float32")
    with (
        pytest.raises(ValueError, match=r"unknown lowering 'fft' \(allowed: xla, dot"),
        force_lowering("fft"),
    ):
        pass
    with pytest.raises(ValueError, match="'dot' cannot express"), force_lowering("dot"):
        conv2d(images, kernel)
    with pytest.raises(ValueError, match="in 2 groups does not fit 2 channels"):
        conv2d(images, kernel, groups=2)
    with pytest.raises(ValueError, match="kernel of 3x3 is larger than the padded image"):
        conv2d(images[:, :2], kernel)
    drawn = {"xla", "dot", "patches", "shifted", "winograd", "parts"}
    assert set(LOWERINGS) == drawn | {"space_to_depth", "four_channels"}
