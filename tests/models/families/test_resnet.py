"""Residual networks: sizes of the published models, stems, heads and refused options."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxres.models import registry
from jaxres.models.families import resnet
from jaxres.models.pure import Net, abstract_net, create_net
from jaxres.ops.target import target_backend
from jaxres.runtime.errors import InputError
from tests.marked import slow


def parameters(name, **options):
    net = abstract_net(name, **({"image_size": 224, "classes": 1000} | options))
    return sum(leaf.size for leaf in jax.tree.leaves(net.params))


@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [
        ("resnet18", 1000, 11_689_512),
        ("resnet34", 1000, 21_797_672),
        ("resnet50", 1000, 25_557_032),
        ("resnet101", 1000, 44_549_160),
        ("resnet152", 1000, 60_192_808),
        ("wide_resnet50_2", 1000, 68_883_240),
        ("wide_resnet101_2", 1000, 126_886_696),
        ("keras_resnet50", 1000, 25_583_592),
        ("resnet101", 10, 42_520_650),
        ("wide_resnet50_2", 10, 66_854_730),
    ],
)
def test_parameter_counts_are_the_published_ones(name, classes, expected):
    assert parameters(name, classes=classes) == expected


@pytest.mark.parametrize(
    ("size", "stem", "side"),
    [(32, "imagenet", 1), (64, "imagenet", 2), (75, "imagenet", 3), (33, "small", 5)],
)
def test_flatten_head_reads_every_position(size, stem, side):
    options = {"image_size": size, "stem": stem, "head": "flatten", "classes": 10}
    net = abstract_net("resnet18", **options)
    assert net.params["head"]["linear"]["kernel"].shape == (512 * side**2, 10)
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    logits, _ = jax.eval_shape(
        lambda *arrays: net.apply(*arrays, train=True), net.params, net.stats, images
    )
    assert logits.shape == (2, 10)


def test_parameter_names():
    params = abstract_net("resnet50", image_size=64, classes=10).params
    assert set(params) == {"stem", "stages", "head"}
    assert params["stem"]["conv"]["kernel"].shape == (7, 7, 3, 64)
    assert params["stages"]["0"]["1"]["conv2"]["kernel"].shape == (3, 3, 64, 64)
    assert params["stages"]["3"]["0"]["shortcut"]["conv"]["kernel"].shape == (1, 1, 1024, 2048)
    assert "shortcut" not in params["stages"]["3"]["1"]


def test_stride_is_in_the_3x3_convolution():
    net = abstract_net("resnet50", image_size=64, classes=10)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    program = str(
        jax.make_jaxpr(lambda *arrays: net.apply(*arrays, train=False))(
            net.params, net.stats, images
        )
    )
    # The first 1x1 of stage 2 still works at 16 pixels: 256 to 128 channels.
    assert "f32[1,16,16,128]" in program


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 31}, "31 pixels; allowed for resnet18: 32 pixels or more"),
        ({"stem": "large"}, "stem is 'large'; allowed: imagenet, small"),
        ({"head": "mean"}, "head is 'mean'; allowed: average, max, flatten"),
        ({"dropout": 1.0}, "dropout is 1.0; allowed: 0 up to, not including, 1"),
    ],
)
def test_refused_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        parameters("resnet18", **options)


@pytest.fixture
def images():
    return jax.random.normal(jax.random.key(1), (4, 40, 40, 3)) + 0.5


@pytest.fixture(params=["torchvision's", slow("keras's")])
def folded_or_not(request, monkeypatch):
    """`make(rule)`: a network of two bottlenecks with its batch norm folded by a rule."""
    keras = request.param == "keras's"  # biases in the convolutions, strides in the first 1x1
    small = partial(resnet.ResNet, resnet.Bottleneck, (1, 1, 0, 0), keras=keras)
    monkeypatch.setitem(registry._MODELS, "two_bottlenecks", small)

    def make(rule: str) -> Net:
        options = {"classes": 7, "image_size": 40, "fold_norm": rule}
        net = create_net("two_bottlenecks", key=jax.random.key(0), **options)
        # The last scales of blocks start at zero, which hides what is before them.
        rng = np.random.default_rng(0)
        moved = jax.tree.map(lambda p: p + 0.1 * rng.standard_normal(p.shape), net.params)
        return net._replace(params=jax.tree.map(jnp.float32, moved))

    return make


def trained(net: Net, images, **options):
    """Logits and statistics of a training batch, and the gradients of a loss."""

    def loss(params):
        logits, stats = net.apply(params, net.stats, images, train=True, **options)
        return jnp.square(logits - 1).mean(), (logits, stats)

    grads, (logits, stats) = jax.jit(jax.grad(loss, has_aux=True))(net.params)
    return logits, stats, grads


@pytest.mark.slow
def test_folded_batch_norm_trains_as_by_itself(folded_or_not, images):
    expected = trained(folded_or_not("never"), images)
    for backend in ("cpu", "gpu"):
        with target_backend(backend):
            found = trained(folded_or_not("always"), images)
        for (path, one), other in zip(
            jax.tree.leaves_with_path(found), jax.tree.leaves(expected), strict=True
        ):
            length = float(jnp.linalg.norm(other)) + 1e-3 * other.size**0.5
            # Of a bias before batch norm the gradient is zero, which the two operations round.
            assert float(jnp.linalg.norm(one - other)) < 1e-3 * length, jax.tree_util.keystr(path)


def test_folding_follows_the_rule(folded_or_not, images):
    def counted(rule, backend="cpu", *, frozen=()):
        net = folded_or_not(rule)
        run = partial(net.apply, train=True, frozen_norms=frozen)
        with target_backend(backend):
            return str(jax.make_jaxpr(run)(net.params, net.stats, images)).count("custom_vjp_call")

    plain = counted("never")
    assert counted("auto") == plain
    # Of two blocks the two shortcuts and the two last convolutions, and the stem with its pooling:
    # one operation each where there were two or three.
    assert counted("always") != plain
    assert counted("auto", "gpu") == counted("always", "gpu") != counted("never", "gpu")
    norms = ("stages.0.0.norm3", "stages.0.0.shortcut.norm", "stages.1.0.norm3", "stem.norm")
    frozen = (*norms, "stages.1.0.shortcut.norm")
    assert counted("always", frozen=frozen) == counted("never", frozen=frozen)


@pytest.mark.slow
def test_evaluation_is_the_same_whatever_is_folded(folded_or_not, images):
    always, never = folded_or_not("always"), folded_or_not("never")
    logits = [
        net.apply(never.params, never.stats, images, train=False)[0] for net in (always, never)
    ]
    np.testing.assert_array_equal(*logits)
