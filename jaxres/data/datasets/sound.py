"""Whether what a user's own dataset gives is what JaxRes trains on."""

from typing import Any, NoReturn

import numpy as np

from jaxres.data.datasets.dataset import Source
from jaxres.runtime.errors import InputError


def sound(given: Any, name: str) -> Source:
    """The split that the `load` of a registered dataset gave, with labels of the usual type.

    Raises:
        InputError: it is none, or its parts do not fit together.
    """

    def refuse(what: str) -> NoReturn:
        raise InputError(f"the dataset '{name}' {what}")

    if not isinstance(given, Source):
        refuse(f"gives a split as {type(given).__name__}; allowed: Source")
    images, labels, classes = given.images, given.labels, len(given.class_names)
    if isinstance(images, np.ndarray) and not _are_images(images):
        refuse(
            f"has images of type {images.dtype} and shape {images.shape}; "
            "allowed: uint8 of shape (n, h, w), grey, or (n, h, w, 3)"
        )
    if not (isinstance(labels, np.ndarray) and labels.dtype.kind in "iu" and labels.ndim in (1, 2)):
        what = f"{getattr(labels, 'dtype', type(labels).__name__)} {np.shape(labels)}"
        refuse(
            f"has labels of {what}; allowed: an array of whole numbers, of shape (n,) or, where an "
            "image may be of several classes, (n, classes)"
        )
    if not len(labels) or len(images) != len(labels):
        refuse(
            f"has {len(images)} images and {len(labels)} labels; allowed: as many of each, one or "
            "more"
        )
    low, high = labels.min(), labels.max()
    if labels.ndim == 2:
        if labels.shape[1] != classes or low < 0 or high > 1:
            refuse(
                f"has labels from {low} to {high} of shape {labels.shape}; allowed for its "
                f"{classes} classes: a column of 0 and 1 for each"
            )
        return given._replace(labels=labels.astype(np.uint8))
    if low < 0 or high >= classes:
        refuse(
            f"has labels from {low} to {high}; allowed for its {classes} classes: 0 to "
            f"{classes - 1}"
        )
    return given._replace(labels=labels.astype(np.int32))


def _are_images(array: np.ndarray) -> bool:
    rgb = array.ndim == 4 and array.shape[-1] == 3
    return array.dtype == np.uint8 and (array.ndim == 3 or rgb)
