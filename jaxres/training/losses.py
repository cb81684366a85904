"""Losses by name, as `train.loss` asks for them."""

from collections.abc import Callable

from jaxtyping import Array, Float

from jaxres.ops import losses
from jaxres.runtime.errors import find, registering

# (logits, labels, smoothing=...) -> the loss of each example
Loss = Callable[..., Float[Array, " n"]]
_LOSSES: dict[str, Loss] = {}


def register_loss(name: str) -> Callable[[Loss], Loss]:
    """Decorator that makes a loss available as `train.loss: NAME`.

    It takes float32 logits (n, classes), int32 labels (n,) and `smoothing`, which is
    `optim.label_smoothing`, and gives the loss of each example.

    Raises:
        ValueError: the name is taken.
    """
    return registering("a loss", name, _LOSSES)


def find_loss(name: str) -> Loss:
    """The loss of this name.

    Raises:
        InputError: there is none.
    """
    return find("train.loss", name, _LOSSES)


register_loss("cross_entropy")(losses.cross_entropy)
register_loss("sigmoid_cross_entropy")(losses.sigmoid_cross_entropy)
