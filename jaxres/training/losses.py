"""Losses by name, as `train.loss` asks for them."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxres.ops import losses
from jaxres.runtime.errors import InputError, find
from jaxres.runtime.own_code import calling, registering

# (logits, labels, smoothing=...) -> the loss of each example
Loss = Callable[..., Float[Array, " n"]]
ONE_CLASS = "cross_entropy"  # it takes no labels of several classes
_LOSSES: dict[str, Loss] = {
    ONE_CLASS: losses.cross_entropy,
    "sigmoid_cross_entropy": losses.sigmoid_cross_entropy,
}
_OURS = frozenset(_LOSSES)


def register_loss(name: str) -> Callable[[Loss], Loss]:
    """Decorator that makes a loss available as `train.loss: NAME`.

    It takes float32 logits (n, classes), int32 labels (n,) and `smoothing`, which is
    `optim.label_smoothing`, and gives the loss of each example. Multi-label data give it uint8
    labels (n, classes) of 0 and 1.

    Raises:
        ValueError: the name is taken, or is none.
    """
    what = f"the loss '{name}'"
    return registering("a loss", name, _LOSSES, lambda loss: calling(what, loss))


def require_takes_labels(name: str, *, examples: int, classes: int, multi_label: bool) -> None:
    """Try a loss on the shapes of so many examples.

    Raises:
        InputError: it takes one class per image, but the data have several; or it fails, or does
            not give a loss for each.
    """
    if multi_label and name == ONE_CLASS:
        raise InputError(
            f"train.loss is {ONE_CLASS}, but an image of the dataset may be of several classes; "
            "allowed: sigmoid_cross_entropy, or a loss of your own"
        )
    logits = jax.ShapeDtypeStruct((examples, classes), jnp.float32)
    loss = partial(find_loss(name), smoothing=0.0)
    given = jax.eval_shape(loss, logits, labels_of(examples, classes, multi_label=multi_label))
    if (shape := getattr(given, "shape", None)) != (examples,):
        what = type(given).__name__ if shape is None else f"an array of shape {shape}"
        raise InputError(
            f"the loss '{name}' gives {what} for {examples} examples; allowed: the loss of each"
        )


def labels_of(examples: int, classes: int, *, multi_label: bool) -> jax.ShapeDtypeStruct:
    """The shape and type of the labels of so many examples."""
    if multi_label:
        return jax.ShapeDtypeStruct((examples, classes), jnp.uint8)
    return jax.ShapeDtypeStruct((examples,), jnp.int32)


def is_own(name: str) -> bool:
    """Whether a loss was registered by a user."""
    return name not in _OURS


def find_loss(name: str) -> Loss:
    """The loss of this name.

    Raises:
        InputError: there is none.
    """
    return find("train.loss", name, _LOSSES)
