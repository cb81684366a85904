"""Where a network looks: Grad-CAM, LayerCAM and, asking nothing of its inside, occlusion.

A map has the image's size and, in any unit, says how much a place speaks for a class.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32, UInt8

from jaxres.config import Config
from jaxres.data.inputs import normalise
from jaxres.evaluation.predict import make_probability_step
from jaxres.explain.layers import Layer
from jaxres.models.pure import Net
from jaxres.runtime.errors import InputError
from jaxres.runtime.screen import track

GREY = 128  # of the patch that hides a part of the image
PATCHES_PER_SIDE = 8  # the patch's side is this share of the image's, unless it is given


def predict_images(
    net: Net,
    config: Config,
    variables: dict[str, Any],
    images: UInt8[np.ndarray, "n side side 3"],
) -> Float32[np.ndarray, "n classes"]:
    """Class probabilities of finished images, computed in batches of the run's size."""
    step = make_probability_step(net, config)

    def rows(variables: Any, images: Array) -> Array:
        return step(variables, images, jnp.zeros(len(images), jnp.int32))["probabilities"]

    return _in_batches(partial(jax.jit(rows), variables), config.data.batch_size, images)


def grad_cam(
    net: Net,
    config: Config,
    variables: dict[str, Any],
    images: UInt8[np.ndarray, "n side side 3"],
    classes: Int32[np.ndarray, " n"],
    layer: Layer,
    *,
    by_position: bool = False,
) -> Float32[np.ndarray, "n side side"]:
    """Grad-CAM (Selvaraju et al. 2017, section 3): what in a layer's maps speaks for a class.

    The weight of a channel is the mean over the map of the gradient of the class's logit; the
    weighted sum of the channels, after ReLU, is enlarged bilinearly, each position lying where it
    looks (`layers.centres`); beyond the outermost positions the map stays as it is there. The maps
    are taken as the layer gives them, which in some families is before ReLU.

    With `by_position` it is LayerCAM (Jiang et al. 2021, equations 4 to 6): at each position the
    weight is the gradient there, after ReLU; made for layers that are not the last.
    """
    spread = _spread(layer.centres, images.shape[1])

    def cam(variables: Any, images: Array, classes: Array) -> Float[Array, "n side side"]:
        normal = normalise(config, images)

        def logits_of(offset: Array) -> tuple[Array, Array]:
            seen: dict[str, Array] = {}

            def tap(name: str, maps: Array) -> Array:
                seen[name] = maps + offset if name == layer.name else maps
                return seen[name]

            params, stats = variables["params"], variables["stats"]
            logits, _ = net.apply(params, stats, normal, train=False, tap=tap)
            # The sum's gradient is each image's own: without `train` they do not mix.
            return jnp.take_along_axis(logits, classes[:, None], axis=1).sum(), seen[layer.name]

        offset = jnp.zeros((len(images), *layer.maps.shape[1:]), layer.maps.dtype)
        gradient, maps = jax.grad(logits_of, has_aux=True)(offset)
        weights = gradient.astype(jnp.float32)
        weights = jax.nn.relu(weights) if by_position else weights.mean((1, 2), keepdims=True)
        small = jax.nn.relu((weights * maps.astype(jnp.float32)).sum(-1))
        return jnp.einsum("pi,nij,qj->npq", spread, small, spread, precision="highest")

    size = config.data.batch_size
    return _in_batches(partial(jax.jit(cam), variables), size, images, classes)


def occlusion(
    net: Net,
    config: Config,
    variables: dict[str, Any],
    images: UInt8[np.ndarray, "n side side 3"],
    classes: Int32[np.ndarray, " n"],
    whole: Float32[np.ndarray, "n classes"],
    *,
    patch: int | None = None,
    shown: bool = False,
) -> Float32[np.ndarray, "n side side"]:
    """Occlusion (Zeiler and Fergus 2014, section 4.2): how far a class falls where a patch hides.

    A grey square of `patch` pixels (default: 1/8 of the side) slides in steps of half its side; a
    pixel's value is the drop in the class's probability from that of the `whole` image
    (`predict_images`), averaged over the squares that hid it. Below zero, hiding helped. Progress
    is `shown`.

    Raises:
        InputError: the patch is larger than the image, or nothing.
    """
    side = images.shape[1]
    patch = max(1, side // PATCHES_PER_SIDE) if patch is None else patch
    if not 1 <= patch <= side:
        raise InputError(f"--patch is {patch}; allowed: 1 to the image's side ({side})")
    last, stride = side - patch, max(1, patch // 2)
    starts = np.array([*range(0, last, stride), last])
    pixel = np.arange(side)
    hides = (pixel >= starts[:, None]) & (pixel < starts[:, None] + patch)  # place, pixel
    rows, columns = (axis.ravel() for axis in np.indices((len(starts), len(starts))))
    step = make_probability_step(net, config)

    def hidden(
        variables: Any, image: Array, label: Array, rows: Array, columns: Array
    ) -> Float[Array, " places"]:
        inside = rows[:, :, None] & columns[:, None, :]
        images = jnp.where(inside[..., None], jnp.uint8(GREY), image)
        found = step(variables, images, jnp.zeros(len(images), jnp.int32))
        return found["probabilities"][:, label]

    compiled = jax.jit(hidden)
    weight = hides.astype(np.float32)
    covered = weight.sum(0)[:, None] * weight.sum(0)
    maps = []
    for place in track(range(len(images)), len(images), "occlusion, images", shown):
        found = _in_batches(
            partial(compiled, variables, images[place], classes[place]),
            config.data.batch_size,
            hides[rows],
            hides[columns],
        )
        drop = whole[place, classes[place]] - found.reshape(len(starts), len(starts))
        maps.append(weight.T @ drop @ weight / covered)
    return np.stack(maps)


def _spread(
    centres: Float32[np.ndarray, " positions"], side: int
) -> Float32[np.ndarray, "side positions"]:
    """What each position gives to each row of the image: linear between the positions' centres.

    Positions that look at the same place share it.
    """
    places, of_position, shared = np.unique(centres, return_inverse=True, return_counts=True)
    rows = np.arange(side)
    each = np.stack([np.interp(rows, places, one) for one in np.eye(len(places))], axis=1)
    return (each[:, of_position] / shared[of_position]).astype(np.float32)


def _in_batches(
    function: Callable[..., Any], size: int, *rows: np.ndarray
) -> Float32[np.ndarray, "n ..."]:
    """A function of arrays of n rows, called with as many at a time; the last part is filled up."""
    n = len(rows[0])
    size = min(size, n)
    parts = []
    for first in range(0, n, size):
        chosen = np.minimum(np.arange(first, first + size), n - 1)
        parts.append(np.asarray(function(*(array[chosen] for array in rows))))
    return np.concatenate(parts)[:n]
