"""A run's images with what the network sees in them, and where it looks for that."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from jaxres.data.composed import require_one_class
from jaxres.evaluation.run import Loaded, require_finite
from jaxres.explain.attention import grad_cam, occlusion, predict_images
from jaxres.explain.layers import find_layer
from jaxres.explain.mass import digit_boxes, shares_in_boxes
from jaxres.explain.preview import planned, rendered

Method = Literal["grad_cam", "layer_cam", "occlusion"]
Maps = Float32[np.ndarray, "n side side"]
Shares = Float32[np.ndarray, " n"]  # of a map's mass that lies in the digit's box


class Look(NamedTuple):
    """Images and their maps; `chance` is the share of a map that is the same everywhere."""

    images: UInt8[np.ndarray, "n side side 3"]
    labels: Int32[np.ndarray, " n"]  # 0 of images without labels
    predicted: Int32[np.ndarray, " n"]
    classes: Int32[np.ndarray, " n"]  # that the maps speak for
    probability: Float32[np.ndarray, " n"]  # of that class
    maps: dict[Method, Maps]
    layer: str  # that Grad-CAM or LayerCAM looked at; empty without them
    positions: tuple[int, int]  # of that layer's maps, rows and columns
    shares: dict[Method, Shares]  # empty where the box is not known
    chance: float | None


def look(
    run: Loaded,
    examples: Sequence[int],
    *,
    methods: Sequence[Method] = ("grad_cam",),
    explain: Literal["predicted", "true"] = "predicted",
    layer: str = "",
    patch: int | None = None,
    shown: bool = False,
) -> Look:
    """Maps of some of a run's images; see `attention` for the methods, `layer` and `patch`.

    Raises:
        InputError: the network has no such layer, or no maps that say where, the patch does not
            fit, or the weights cannot be used.
    """
    require_one_class(run.dataset)
    chosen = None
    if set(methods) - {"occlusion"}:
        chosen = find_layer(run.net, run.config.data.image_size, layer)
    batch = planned(run.dataset, examples)
    images, labels = rendered(run.dataset, batch), batch["label"]
    network = (run.net, run.config, run.variables)
    rows = predict_images(*network, images)
    require_finite(rows, run)
    predicted = rows.argmax(1).astype(np.int32)
    classes = predicted if explain == "predicted" else labels
    make: dict[Method, Callable[..., Any]] = {
        "occlusion": partial(occlusion, whole=rows, patch=patch, shown=shown)
    }
    if chosen:
        make["grad_cam"] = partial(grad_cam, layer=chosen)
        make["layer_cam"] = partial(grad_cam, layer=chosen, by_position=True)
    maps: dict[Method, Maps] = {}
    for method in methods:
        maps[method] = make[method](*network, images, classes)
    boxes = digit_boxes(run.dataset, batch)
    shares: dict[Method, Shares] = {}
    chance = None
    if boxes is not None:
        for method, found in maps.items():
            shares[method] = shares_in_boxes(found, boxes)
        uniform = np.ones(images.shape[:3], np.float32)
        chance = float(shares_in_boxes(uniform, boxes).mean())
    return Look(
        images=images,
        labels=labels,
        predicted=predicted,
        classes=classes,
        probability=rows[np.arange(len(rows)), classes],
        maps=maps,
        layer=chosen.name if chosen else "",
        positions=chosen.maps.shape[1:3] if chosen else (0, 0),
        shares=shares,
        chance=chance,
    )
