"""Models as plain dicts and a pure function: dtypes, statistics, dropout, synchronisation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from jaxres.models import registry
from jaxres.models.blocks import BatchNorm
from jaxres.models.options import Options
from jaxres.models.pure import Net, abstract_net, create_net, flatten
from jaxres.runtime.errors import InputError
from tests import tiny

assert tiny.Tiny
OPTIONS = {"classes": 10, "image_size": 32}


@pytest.fixture(scope="module")
def net() -> Net:
    return create_net("resnet18", key=jax.random.key(0), **OPTIONS)


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(1), (8, 32, 32, 3))


def test_plain_dicts_of_float32(net):
    for tree in (net.params, net.stats):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            assert all(isinstance(entry.key, str) for entry in path)
            assert isinstance(leaf, jax.Array)
            assert leaf.dtype == jnp.float32


def test_abstract_is_the_shape_of_real(net):
    abstract = abstract_net("resnet18", **OPTIONS)
    for made, shape in ((net.params, abstract.params), (net.stats, abstract.stats)):
        assert jax.tree.map(lambda a: (a.shape, a.dtype), made) == jax.tree.map(
            lambda a: (a.shape, a.dtype), shape
        )
        assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(shape))


def test_initial_values(net):
    params, block = net.params, net.params["stages"]["1"]["0"]
    # He's normal of fan out 3 * 3 * 128 and a last normalisation that starts at zero.
    assert np.std(block["conv1"]["kernel"]) == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    assert not np.any(block["norm2"]["scale"])
    assert np.all(np.asarray(block["norm1"]["scale"]) == 1)
    assert np.abs(params["head"]["linear"]["kernel"]).max() <= 512**-0.5
    first, second = (params["stages"]["0"]["0"][name]["kernel"] for name in ("conv1", "conv2"))
    assert not np.array_equal(first, second)


def test_logits_of_another_shape_are_told(monkeypatch: pytest.MonkeyPatch):
    class Seven(tiny.Tiny):
        def __init__(self, options, *, rngs):
            super().__init__(dataclasses.replace(options, classes=7), rngs=rngs)

    monkeypatch.setitem(registry._MODELS, "tiny", Seven)
    net = create_net("tiny", key=jax.random.key(0), classes=10, image_size=32)
    with pytest.raises(TypeError, match=r"Seven gives logits of shape \(2, 7\), not \(2, 10\)"):
        net.apply(net.params, net.stats, jnp.ones((2, 32, 32, 3)), train=False)


def test_training_moves_the_statistics_and_evaluation_does_not(images):
    net = create_net("tiny", key=jax.random.key(0), **OPTIONS)

    @jax.jit
    def evaluate(params, stats, images):
        logits, same = net.apply(params, stats, images, train=False)
        assert same is stats
        return logits

    evaluated = evaluate(net.params, net.stats, images)
    trained = jax.jit(lambda *arrays: net.apply(*arrays, train=True))
    logits, moved = trained(net.params, net.stats, images)
    assert logits.shape == evaluated.shape == (8, 10)
    assert logits.dtype == evaluated.dtype == jnp.float32
    assert jax.tree.structure(moved) == jax.tree.structure(net.stats)
    assert all(np.any(np.asarray(m) != 0) for m in jax.tree.leaves(moved))
    stem = moved["conv1"]["norm"]
    # The first layer's inputs are known, so its statistics are too: a tenth of the way from (0, 1).
    kernel = net.params["conv1"]["conv"]["kernel"]
    outputs = jax.lax.conv_general_dilated(
        images, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    outputs = np.asarray(outputs, np.float64)
    np.testing.assert_allclose(stem["mean"], 0.1 * outputs.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(stem["var"], 0.9 + 0.1 * outputs.var((0, 1, 2)), rtol=1e-5)


def test_bfloat16_keeps_float32_where_it_matters():
    net = abstract_net("resnet50", **OPTIONS, dtype=jnp.bfloat16)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.bfloat16)
    program = jax.make_jaxpr(lambda *arrays: net.apply(*arrays, train=True))(
        net.params, net.stats, images
    )
    logits, stats = jax.eval_shape(
        lambda *arrays: net.apply(*arrays, train=True), net.params, net.stats, images
    )
    for tree in (net.params, stats, logits):
        assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {jnp.dtype("float32")}
    # The maps between layers are bfloat16.
    assert "bf16[2,8,8,256]" in str(program)


def test_dropout_needs_a_key_in_training_only(images):
    net = create_net("tiny", key=jax.random.key(0), **OPTIONS, dropout=0.5)
    jax.eval_shape(lambda *arrays: net.apply(*arrays, train=False), net.params, net.stats, images)
    with pytest.raises(ValueError, match=r"dropout of 0\.5 needs a key in training"):
        jax.eval_shape(
            lambda *arrays: net.apply(*arrays, train=True), net.params, net.stats, images
        )
    trained = jax.jit(lambda key: net.apply(net.params, net.stats, images, train=True, key=key)[0])
    first, again, other = (trained(jax.random.key(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def normalised(images, axis_name):
    """Outputs and moved statistics of a fresh batch normalisation."""
    norm = BatchNorm(images.shape[-1], axis_name=axis_name, dtype=jnp.float32)
    outputs = norm(images, train=True)
    return outputs, norm.mean[...], norm.var[...]


def test_synchronised_statistics_are_those_of_the_global_batch():
    images = 3 + jnp.arange(8.0)[:, None, None, None] * jax.random.normal(
        jax.random.key(0), (8, 4, 4, 5)
    )
    mesh = jax.make_mesh((4,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    split = jax.shard_map(
        lambda part: normalised(part, "data"),
        mesh=mesh,
        in_specs=P("data"),
        out_specs=(P("data"), P(), P()),
    )
    for found, wanted in zip(jax.jit(split)(images), normalised(images, None), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    alone = normalised(images[:2], None)[1]
    assert not np.allclose(alone, normalised(images, None)[1], rtol=1e-2)


def test_a_constant_channel_stays_finite():
    outputs, _, variance = normalised(jnp.full((2, 3, 3, 2), 1234.567), None)
    assert np.all(np.isfinite(outputs))
    assert np.all(np.asarray(variance) >= 0.9)


@pytest.mark.slow
def test_sync_option_reaches_every_layer():
    options = Options(classes=10, image_size=32, sync_batch_norm=True)
    for name in ("resnet18", "vgg11_bn", "mobilenet_v2", "shufflenet_v2_x0_5", "cifar_resnet20"):
        model = nnx.eval_shape(lambda name=name: registry.create(name, options, rngs=nnx.Rngs(0)))
        norms = [node for _, node in nnx.iter_graph(model) if isinstance(node, BatchNorm)]
        assert all(norm.axis_name == "data" for norm in norms)
        if name == "resnet18":
            assert len(norms) == 20


def test_unknown_model_is_named():
    with pytest.raises(InputError, match="unknown model 'resnet19'"):
        abstract_net("resnet19", **OPTIONS)


def test_layers_are_seen_by_their_names_and_may_be_changed(images):
    net = create_net("tiny", key=jax.random.key(0), **OPTIONS)
    seen = {}

    def tap(name, maps):
        seen[name] = maps
        return maps

    def logits(**options):
        return net.apply(net.params, net.stats, images, train=False, **options)[0]

    plain = logits()
    np.testing.assert_array_equal(logits(tap=tap), plain)
    assert [*seen] == ["conv1", "conv2", "features"]
    for name in [*seen][:-1]:
        assert any(leaf.startswith(f"{name}.") for leaf in flatten(net.params))
    np.testing.assert_array_equal(nnx.relu(seen["conv2"]), seen["features"])
    head = net.params["head"]["linear"]
    by_hand = seen["features"].mean((1, 2)) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(plain, by_hand, atol=1e-5)
    nothing = logits(tap=lambda name, maps: 0 * maps if name == "features" else maps)
    np.testing.assert_array_equal(nothing, np.broadcast_to(head["bias"], nothing.shape))
    np.testing.assert_array_equal(logits(), plain)  # what was watched is forgotten
