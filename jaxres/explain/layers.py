"""The layers of a network whose maps can be looked at."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from jaxres.models.pure import Net
from jaxres.runtime.errors import InputError, unknown_name

CLEAR_SIDE = 7  # positions along a side from which a map says where; ImageNet's last maps have them

Shapes = dict[str, jax.ShapeDtypeStruct]  # of the maps of one image, (1, h, w, channels)


class Layer(NamedTuple):
    """A layer whose maps are looked at, and where its positions look."""

    name: str
    maps: jax.ShapeDtypeStruct  # of one image, (1, h, w, channels)
    centres: Float32[np.ndarray, " positions"]  # as `centres` gives them


def find_layer(net: Net, side: int, asked: str = "") -> Layer:
    """The layer that `choose_layer` chooses for images of `side` pixels; errors as there."""
    shapes = layer_shapes(net, side)
    name = choose_layer(shapes, asked)
    return Layer(name, shapes[name], centres(net, side, name))


def layer_shapes(net: Net, side: int) -> Shapes:
    """What each layer gives for an image of `side` pixels, in the order of the computation.

    The names are those of `Net.apply`'s `tap`; the last is `features`.
    """
    shapes: Shapes = {}

    def tap(name: str, maps: jax.Array) -> jax.Array:
        shapes[name] = jax.ShapeDtypeStruct(maps.shape, maps.dtype)
        return maps

    def logits(params: Any, stats: Any, image: jax.Array) -> jax.Array:
        return net.apply(params, stats, image, train=False, tap=tap)[0]

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


def centres(net: Net, side: int, layer: str) -> Float32[np.ndarray, " positions"]:
    """Where each row of a layer's maps looks: the middle of what it sees, as a row of the image.

    That need not be the middle of the row's share of the image: after symmetric padding, as torch
    has it, a stride begins at the first pixel. Images are squares of `side` pixels; columns are
    as rows.

    The network itself tells: with kernels that pass on what is under their middle, and norms that
    change nothing, it makes of an image of row numbers a map of row numbers. Where it takes a
    maximum, the middle is half-way between what it says of the image and of the reversed one.
    """

    def passing_on(path: tuple[Any, ...], leaf: jax.Array | jax.ShapeDtypeStruct) -> np.ndarray:
        name = path[-1].key
        if name in ("scale", "var"):
            return np.ones(leaf.shape, np.float32)
        weights = np.zeros(leaf.shape, np.float32)
        if name == "kernel" and len(leaf.shape) == 4:
            rows, columns = (sorted({(size - 1) // 2, size // 2}) for size in leaf.shape[:2])
            # All channels are the same; of one of them bfloat16 makes whole numbers again.
            weights[np.ix_(rows, columns, [0])] = 1 / (len(rows) * len(columns))
        return weights

    @jax.jit
    def seen(params: Any, stats: Any, images: jax.Array) -> jax.Array:
        found: dict[str, jax.Array] = {}

        def tap(name: str, maps: jax.Array) -> jax.Array:
            found[name] = maps
            return maps

        net.apply(params, stats, images, train=False, tap=tap)
        return found[layer].astype(jnp.float32).mean((2, 3))

    params, stats = (
        jax.tree_util.tree_map_with_path(passing_on, tree) for tree in (net.params, net.stats)
    )
    row = np.arange(1, side + 1, dtype=np.float32)
    values = np.stack([np.ones_like(row), row, row[::-1]])
    values *= 2.0**-20  # so small that activations which are cut off above let it pass
    images = np.broadcast_to(values[:, :, None, None], (3, side, side, 3))
    one, down, up = np.asarray(seen(params, stats, images))
    return (down / one - 1 + side - up / one) / 2
