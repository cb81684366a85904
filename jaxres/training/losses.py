"""Losses by name, as `train.loss` asks for them."""

from collections.abc import Callable

from jaxtyping import Array, Float

from jaxres.ops import losses
from jaxres.runtime.errors import InputError, find, registering

# (logits, labels, smoothing=...) -> the loss of each example
Loss = Callable[..., Float[Array, " n"]]
_LOSSES: dict[str, Loss] = {}
ONE_CLASS = "cross_entropy"  # it takes no labels of several classes


def register_loss(name: str) -> Callable[[Loss], Loss]:
    """Decorator that makes a loss available as `train.loss: NAME`.

    It takes float32 logits (n, classes), int32 labels (n,) and `smoothing`, which is
    `optim.label_smoothing`, and gives the loss of each example. Multi-label data give it uint8
    labels (n, classes) of 0 and 1.

    Raises:
        ValueError: the name is taken.
    """
    return registering("a loss", name, _LOSSES)


def require_takes_labels(name: str, *, multi_label: bool) -> None:
    """Refuse a loss that takes one class per image for data that have several.

    Raises:
        InputError: it is one.
    """
    if multi_label and name == ONE_CLASS:
        raise InputError(
            f"train.loss is {ONE_CLASS}, but an image of the dataset may be of several classes; "
            "allowed: sigmoid_cross_entropy, or a loss of your own"
        )


def find_loss(name: str) -> Loss:
    """The loss of this name.

    Raises:
        InputError: there is none.
    """
    return find("train.loss", name, _LOSSES)


register_loss(ONE_CLASS)(losses.cross_entropy)
register_loss("sigmoid_cross_entropy")(losses.sigmoid_cross_entropy)
