"""Dropout, of single values and of whole feature maps."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


def dropout(
    features: Float[Array, "..."],
    rate: float,
    *,
    train: bool,
    key: PRNGKeyArray | None,
    whole_maps: bool = False,
) -> Float[Array, "..."]:
    """Zero each value with probability `rate` and scale the others by 1 / (1 - rate), in training.

    With `whole_maps` the features are (n, h, w, c), and an image's feature map is zeroed or kept
    as a whole: the spatial dropout of Tompson et al. (2015), section 3.2.

    Raises:
        ValueError: training with a rate above zero but no key.
    """
    if not train or rate == 0.0:
        return features
    if key is None:
        raise ValueError(f"dropout of {rate} needs a key in training; none was given")
    n, *_, c = features.shape
    shape = (n, 1, 1, c) if whole_maps else features.shape
    kept = jax.random.bernoulli(key, 1.0 - rate, shape)
    return jnp.where(kept, features / (1.0 - rate), jnp.zeros((), features.dtype))


def fold(key: PRNGKeyArray | None, place: int) -> PRNGKeyArray | None:
    """The key of one of several places that draw; None stays None."""
    return None if key is None else jax.random.fold_in(key, place)
