"""Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019): images with a share of another's.

The other of an image is the one at its place from the end of the device's part of a batch, or of a
microbatch where `optim.accumulate_steps` has several. So the pairs, unlike the images, depend on
the number of devices. One share is drawn for all of them.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from jaxres.config import Augmenting


def mixed(
    images: Float[Array, "n h w c"], key: Array, augment: Augmenting
) -> tuple[Float[Array, "n h w c"], Float32[Array, ""]]:
    """The images with their others in them, and their own share, 0 to 1."""
    to_choose, to_mix, to_cut = jax.random.split(key, 3)
    if not augment.cutmix:
        return _mixup(images, to_mix, augment.mixup)
    if not augment.mixup:
        return _cutmix(images, to_cut, augment.cutmix)
    first = _mixup(images, to_mix, augment.mixup)
    second = _cutmix(images, to_cut, augment.cutmix)
    chosen = jax.random.bernoulli(to_choose)
    return jax.tree.map(lambda one, other: jnp.where(chosen, one, other), first, second)


def _mixup(images: Array, key: Array, alpha: float) -> tuple[Array, Array]:
    share = jax.random.beta(key, alpha, alpha)
    blend = share * images + (1 - share) * images[::-1]
    return blend.astype(images.dtype), share


def _cutmix(images: Array, key: Array, alpha: float) -> tuple[Array, Array]:
    """A box of the same shape as the image, its middle anywhere, cut off at the border."""
    to_share, to_place = jax.random.split(key)
    height, width = images.shape[1:3]
    cut = jnp.sqrt(1 - jax.random.beta(to_share, alpha, alpha))
    middle = jax.random.uniform(to_place, (2,))
    inside = []
    for side, place in ((height, middle[0]), (width, middle[1])):
        pixel = jnp.arange(side)
        first = jnp.round(place * side - cut * side / 2)
        inside.append((pixel >= first) & (pixel < first + jnp.round(cut * side)))
    box = inside[0][:, None] & inside[1][None, :]
    own = 1 - jnp.mean(box, dtype=jnp.float32)
    return jnp.where(box[..., None], images[::-1], images), own
