"""The heads that all networks share, and where dropout stands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxres.models import blocks, network, registry, sequential
from jaxres.models.network import Head
from jaxres.models.options import Options
from jaxres.models.pure import abstract_net
from jaxres.ops.dropout import dropout
from tests.marked import slow
from tests.models import drawn

CHANNELS, SIZE, CLASSES = 6, 3, 4
FEATURES = drawn.draw("features", (5, SIZE, SIZE, CHANNELS))
READS = {
    "average": lambda maps: maps.mean((1, 2)),
    "max": lambda maps: maps.max((1, 2)),
    "flatten": lambda maps: maps.reshape(len(maps), -1),
}


def make(*, classes=CLASSES, defaults=None, **options):
    asked = Options(classes=classes, image_size=32, **options)
    return Head(CHANNELS, SIZE, asked, rngs=nnx.Rngs(0), **(defaults or {}))


def randomise(head):
    """Values of no layer are those of a fresh one."""
    for path, variable in nnx.to_flat_state(nnx.state(head)):
        values = drawn.draw(".".join(map(str, path)), variable.shape)
        variable[...] = jnp.asarray(1 + values / 2 if path[-1] in ("scale", "var") else values)


def linear(layer, rows):
    return rows @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])


def normed(norm, rows, mean, var):
    factor = np.asarray(norm.scale[...]) / np.sqrt(var + 1e-5)
    return (rows - mean) * factor + np.asarray(norm.bias[...])


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("dense_norm", [False, True])
@pytest.mark.parametrize("dense", [(), (7,), (7, 5)])
@pytest.mark.parametrize("kind", READS)
def test_pooled_or_flattened_then_dense_layers(kind, dense, dense_norm, train):
    head = make(head=kind, dense=dense, dense_norm=dense_norm)
    randomise(head)
    stats = [(np.asarray(norm.mean[...]), np.asarray(norm.var[...])) for norm in head.norms]
    assert len(stats) == len(dense) * dense_norm
    found = head(jnp.asarray(FEATURES), train=train, key=None)
    rows = READS[kind](FEATURES.astype(np.float64))
    for place, layer in enumerate(head.dense):
        rows = linear(layer, rows)
        if dense_norm:
            moments = (rows.mean(0), rows.var(0)) if train else stats[place]
            rows = normed(head.norms[place], rows, *moments)
        rows = np.maximum(rows, 0)
    np.testing.assert_allclose(found, linear(head.linear, rows), rtol=2e-5, atol=2e-5)


def test_options_take_the_place_of_the_networks_own():
    own = {"kind": "flatten", "dense": (7,), "dense_norm": True, "dropout": 0.5}
    head = make(defaults=own)
    assert (head.kind, len(head.dense), len(head.norms), head.dropout) == ("flatten", 1, 1, 0.5)
    head = make(defaults=own, head="max", dense=(), dense_norm=False, dropout=0.0)
    assert (head.kind, len(head.dense), len(head.norms), head.dropout) == ("max", 0, 0, 0.0)


@pytest.mark.parametrize(
    ("dense", "survivors", "places"),
    # Kept values double at every dropout: one before the last layer, or one after each dense one.
    [((), 2, 1), ((CHANNELS,), 2, 1), ((CHANNELS,) * 2, 4, 2)],
)
def test_dropout_follows_dense_layers_or_precedes_the_last(dense, survivors, places):
    head = make(dense=dense, dropout=0.5, classes=CHANNELS)
    for layer in (*head.dense, head.linear):
        layer.kernel[...] = jnp.eye(CHANNELS)
    head.linear.bias[...] = jnp.full(CHANNELS, 10.0)  # no dropout comes after it
    ones = jnp.ones((2000, SIZE, SIZE, CHANNELS))
    logits = np.asarray(head(ones, train=True, key=jax.random.key(0)))
    assert set(np.unique(logits)) == {10.0, 10.0 + survivors}
    kept = logits > 10.0
    # 12,000 draws: a standard deviation of 0.005.
    assert kept.mean() == pytest.approx(0.5**places, abs=0.02)
    assert not np.array_equal(head(ones, train=True, key=jax.random.key(1)), logits)
    assert np.all(np.asarray(head(ones, train=False, key=None)) == 11.0)


def test_spatial_dropout_drops_whole_maps():
    maps = jnp.ones((400, 3, 2, 25))
    key = jax.random.key(0)
    whole = np.asarray(dropout(maps, 0.2, train=True, key=key, whole_maps=True))
    assert set(np.unique(whole)) == {0.0, 1.25}
    assert np.all(whole == whole[:, :1, :1])
    kept = whole[:, 0, 0] > 0
    # 10,000 draws, each image and channel its own: a standard deviation of 0.004.
    assert kept.mean() == pytest.approx(0.8, abs=0.02)
    assert kept.mean(0).std() < 0.05
    assert kept.mean(1).std() < 0.15
    single = np.asarray(dropout(maps, 0.2, train=True, key=key))
    assert not np.all(single == single[:, :1, :1])


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        slow("mobilenet_v2", {}, [((2, 1280), 0.2, False)]),
        ("vgg11", {}, [((2, 4096), 0.5, False)] * 2),
        ("handbook_cnn", {}, [((2, 128), 0.5, False), ((2, 64), 0.5, False)]),
        (
            "de_novo_cnn",
            {},
            [
                ((2, 16, 16, 64), 0.2, True),
                ((2, 8, 8, 128), 0.2, True),
                ((2, 4, 4, 256), 0.2, False),
                ((2, 512), 0.5, False),
            ],
        ),
        ("de_novo_cnn", {"spatial_dropout": 0.0, "dropout": 0.0}, []),
        slow("resnet50", {}, []),
    ],
)
def test_where_networks_drop(name, options, expected, monkeypatch):
    seen = []

    def dropout(features, rate, *, train, key, whole_maps=False):
        if train and rate:
            assert key is not None
            seen.append((features.shape, rate, whole_maps))
        return features

    monkeypatch.setattr(network, "dropout", dropout)
    monkeypatch.setattr(sequential, "dropout", dropout)
    net = abstract_net(name, classes=CLASSES, image_size=32, **options)
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    for train in (True, False):
        key = jax.random.key(0) if train else None
        jax.eval_shape(
            lambda *arrays, train=train, key=key: net.apply(*arrays, train=train, key=key),
            net.params,
            net.stats,
            images,
        )
    assert seen == expected


@pytest.mark.parametrize(
    ("name", "epsilon"), [("resnet50", 1e-5), ("keras_resnet50", 1.001e-5), ("xception", 1e-3)]
)
def test_epsilon_is_the_librarys_own(name, epsilon):
    options = Options(classes=CLASSES, image_size=32)
    model = nnx.eval_shape(lambda: registry.create(name, options, rngs=nnx.Rngs(0)))
    norms = [node for _, node in nnx.iter_graph(model) if isinstance(node, blocks.BatchNorm)]
    assert {norm.epsilon for norm in norms} == {epsilon}
