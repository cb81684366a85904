"""ImageNet's pipeline as a TensorFlow user writes it: part and size in one step of decoding."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf  # pyright: ignore[reportMissingImports]

from jaxres.data.compose.cropped import Cropped
from jaxres.data.composed import ComposedDataset

ANYTHING = [[[0.0, 0.0, 1.0, 1.0]]]  # the box of which the part has to hold some: the whole image


def photograph(dataset: ComposedDataset) -> Callable[[Any], tuple[Any, Any]]:
    """A random part of a photograph, the only one decoded, resized and mirrored at random.

    Bilinearly, as TensorFlow's own ImageNet examples do, without antialiasing, which ours has.
    """
    compose = dataset.compose
    assert isinstance(compose, Cropped)
    assert compose.area is not None
    images, labels = dataset.resident.images, tf.constant(dataset.source.labels)
    canvas, area, ratio, flip = compose.canvas, compose.area, compose.ratio, compose.flip

    def content(index: Any) -> bytes:
        return images.content(int(index))[0]

    def made(index: Any) -> tuple[Any, Any]:
        encoded = tf.numpy_function(content, [index], tf.string, stateful=False)
        start, size, _ = tf.image.sample_distorted_bounding_box(
            tf.image.extract_jpeg_shape(encoded),
            ANYTHING,
            min_object_covered=0.0,
            aspect_ratio_range=ratio,
            area_range=area,
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.stack([start[0], start[1], size[0], size[1]])
        image = tf.image.decode_and_crop_jpeg(encoded, window, channels=3)
        if flip:
            image = tf.image.random_flip_left_right(image)
        image = tf.image.resize(image, (canvas, canvas), method="bilinear")
        return tf.cast(tf.round(image), tf.uint8), labels[index]

    return made
