import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxres.config import AugmentConfig, Config
from jaxres.models.build import network
from jaxres.ops.losses import cross_entropy
from jaxres.training.mixing import mixed
from jaxres.training.step import MIXING, batch_loss

IMAGES = jnp.arange(6, dtype=jnp.float32)[:, None, None, None] * jnp.ones((6, 16, 20, 3))


def test_mixup_blends_each_image_with_its_other() -> None:
    augment = AugmentConfig(mixup=0.4).resolved()
    for seed in range(5):
        images, share = mixed(IMAGES, jax.random.key(seed), augment)
        assert 0 <= share <= 1
        expected = share * IMAGES + (1 - share) * IMAGES[::-1]
        np.testing.assert_allclose(images, expected, rtol=1e-6)


def test_cutmix_lays_a_box_of_the_other_over_the_image() -> None:
    augment = AugmentConfig(cutmix=1.0).resolved()
    shares = []
    for seed in range(40):
        images, share = mixed(IMAGES, jax.random.key(seed), augment)
        others = np.asarray(images[0] == IMAGES[-1])[..., 0]
        assert np.all(np.asarray(images[0])[~others] == 0)
        rows, columns = others.any(1), others.any(0)
        assert others.sum() == rows.sum() * columns.sum()
        assert float(share) == pytest.approx(1 - others.mean(), abs=1e-6)
        shares.append(float(share))
    assert min(shares) < 0.4
    assert max(shares) > 0.9


def test_both_take_turns() -> None:
    augment = AugmentConfig(mixup=0.4, cutmix=1.0).resolved()
    drawn = [mixed(IMAGES, jax.random.key(seed), augment)[0][0] for seed in range(12)]
    assert any(np.ptp(image) == 0 and 0 < image[0, 0, 0] < 5 for image in drawn)
    assert any(np.ptp(image) == 5 for image in drawn)


def test_the_loss_is_that_of_both_labels(tiny_config) -> None:
    plain = tiny_config()
    config: Config = dataclasses.replace(plain, augment=AugmentConfig(mixup=0.4))
    net = network(plain, classes=10)
    random = np.random.default_rng(0)
    images = jnp.asarray(random.integers(0, 256, (8, 32, 32, 3)), jnp.uint8)
    labels = jnp.arange(8, dtype=jnp.int32)
    key = jax.random.key(3)
    weights = (frozenset(), {}, net.params, net.stats)
    found, _ = batch_loss(net, config, cross_entropy, *weights, images, labels, key)
    pixels, share = mixed(
        images / 255.0, jax.random.fold_in(key, MIXING), config.augment.resolved()
    )
    logits, _ = net.apply(net.params, net.stats, pixels, train=True, key=key)
    own, others = cross_entropy(logits, labels), cross_entropy(logits, labels[::-1])
    expected = (share * own + (1 - share) * others).mean()
    assert float(found) == pytest.approx(float(expected), rel=1e-4)
