"""The layers of a network whose maps can be looked at."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxres.errors import InputError, unknown_name
from jaxres.models.pure import Net

CLEAR_SIDE = 7  # positions along a side from which a map says where; ImageNet's last maps have them

Shapes = dict[str, jax.ShapeDtypeStruct]  # of the maps of one picture, (1, h, w, channels)


def layer_shapes(net: Net, side: int) -> Shapes:
    """What each layer gives for a picture of `side` pixels, in the order of the computation.

    The names are those of `Net.apply`'s `see`; the last is `features`.
    """
    shapes: Shapes = {}

    def see(name: str, maps: jax.Array) -> jax.Array:
        shapes[name] = jax.ShapeDtypeStruct(maps.shape, maps.dtype)
        return maps

    def logits(params: Any, stats: Any, image: jax.Array) -> jax.Array:
        return net.apply(params, stats, image, train=False, see=see)[0]

    image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    jax.eval_shape(logits, net.params, net.stats, image)
    return shapes


def choose_layer(shapes: Shapes, asked: str = "") -> str:
    """The layer to look at: the one asked for, else the last whose maps still say where.

    That is the last with at least 7x7 positions, or else the last one, `features`. A layer that
    follows one with fewer does not count: VGG spreads small maps over 7x7.

    Raises:
        InputError: no layer has the name, the network is fully connected, or its maps are 1x1.
    """
    if set(shapes) == {"features"}:
        raise InputError(
            "the network is fully connected: it has no feature maps; allowed: --method occlusion"
        )
    if asked and asked not in shapes:
        raise unknown_name("layer", asked, shapes)
    chosen, fewest = "features", min(shapes[next(iter(shapes))].shape[1:3])
    for name, maps in shapes.items():
        fewest = min(fewest, *maps.shape[1:3])
        if fewest >= CLEAR_SIDE:
            chosen = name
    chosen = asked or chosen
    if shapes[chosen].shape[1:3] == (1, 1):
        larger = [name for name, maps in shapes.items() if maps.shape[1:3] != (1, 1)]
        raise InputError(
            f"the maps of layer {chosen} are 1x1 and say nothing of where; "
            f"allowed: {', '.join(larger) or '--method occlusion'}"
        )
    return chosen
