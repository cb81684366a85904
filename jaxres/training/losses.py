"""Losses by name, as `train.loss` asks for them."""

import functools
from collections.abc import Callable

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


def register_loss(name: str) -> Callable[[Loss], Loss]:
    """Decorator that makes a loss available as `train.loss: NAME`.

    It takes float32 logits (n, classes), int32 labels (n,) and `smoothing`, which is
    `optim.label_smoothing`, and gives the loss of each example. Multi-label data give it uint8
    labels (n, classes) of 0 and 1.

    Raises:
        ValueError: the name is taken, or is empty.
    """
    what = f"the loss '{name}'"

    def entry(loss: Loss) -> Loss:
        own = calling(what, loss)

        @functools.wraps(loss)
        def checked(logits: Array, labels: Array, *, smoothing: float) -> Array:
            given = own(logits, labels, smoothing=smoothing)
            n = len(logits)
            if (shape := getattr(given, "shape", None)) != (n,):
                kind = type(given).__name__ if shape is None else f"an array of shape {shape}"
                raise InputError(f"{what} gives {kind} for {n} examples; allowed: the loss of each")
            return given

        return checked

    return registering("loss", name, _LOSSES, entry)


def require_takes_labels(name: str, *, multi_label: bool) -> None:
    """Refuse a loss that takes one class per image, on data whose images may be of several.

    Raises:
        InputError: it is such a loss, and these are such data.
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
