import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from jaxres.models.build import network
from jaxres.ops.losses import cross_entropy
from jaxres.runtime.errors import InputError
from jaxres.training.losses import find_loss, register_loss
from jaxres.training.step import batch_loss


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_sigmoid_cross_entropy_asks_one_question_per_class(smoothing: float) -> None:
    logits = np.array([[2.0, -1.0, 0.5], [-3.0, 0.0, 4.0]], np.float64)
    labels = np.array([0, 1], np.int32)
    targets = np.eye(3)[labels] * (1 - smoothing) + smoothing / 3
    yes = 1 / (1 + np.exp(-logits))
    wanted = -(targets * np.log(yes) + (1 - targets) * np.log(1 - yes)).sum(-1)
    loss = find_loss("sigmoid_cross_entropy")
    found = loss(jnp.asarray(logits, jnp.float32), jnp.asarray(labels), smoothing=smoothing)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_sigmoid_cross_entropy_of_several_classes(smoothing: float) -> None:
    logits = np.array([[2.0, -1.0, 0.5], [-3.0, 0.0, 4.0]], np.float64)
    labels = np.array([[1, 0, 1], [0, 0, 0]], np.uint8)
    targets = labels * (1 - smoothing) + smoothing / 2
    yes = 1 / (1 + np.exp(-logits))
    wanted = -(targets * np.log(yes) + (1 - targets) * np.log(1 - yes)).sum(-1)
    loss = find_loss("sigmoid_cross_entropy")
    found = loss(jnp.asarray(logits, jnp.float32), jnp.asarray(labels), smoothing=smoothing)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_a_name_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(InputError, match=r"unknown train.loss 'sigmoid'.*cross_entropy"):
        find_loss("sigmoid")


@pytest.mark.slow
def test_a_loss_that_is_not_one_per_image_is_refused(tiny_config) -> None:
    config = tiny_config()
    net = network(config, classes=10)
    images, labels = jnp.zeros((4, 32, 32, 3), jnp.uint8), jnp.zeros(4, jnp.int32)

    def mean(logits: Array, labels: Array, *, smoothing: float) -> Array:
        return cross_entropy(logits, labels, smoothing=smoothing).mean()

    weights = (frozenset(), {}, net.params, net.stats)
    with pytest.raises(AssertionError, match="shape"):
        batch_loss(net, config, mean, *weights, images, labels, jax.random.key(0))


def test_a_name_is_taken_once() -> None:
    with pytest.raises(ValueError, match="already registered"):
        register_loss("cross_entropy")(find_loss("cross_entropy"))
