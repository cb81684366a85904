"""The input pipeline as a TensorFlow user writes it: tf.data with a map over single images."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf  # pyright: ignore[reportMissingImports]

from jaxres.data.compose.scale_blend import ScaleBlend
from jaxres.data.composed import ComposedDataset

VERSION = tf.__version__
tf.config.set_visible_devices([], "GPU")  # the pipeline needs none, and JAX has its memory


def batches(dataset: ComposedDataset, batch_size: int, *, workers: int) -> Iterator[Any]:
    """Batches without end: (images uint8, labels), mapped in `workers` threads that read ahead.

    Without workers it reads nothing ahead: that would be done while it is another's turn.
    """
    numbers = tf.data.Dataset.range(len(dataset)).shuffle(len(dataset)).repeat()
    example = maker(dataset)
    made = numbers.map(example, num_parallel_calls=workers or None, deterministic=True)
    made = made.batch(batch_size, drop_remainder=True)
    if workers:
        made = made.prefetch(2)
    options = tf.data.Options()
    options.threading.private_threadpool_size = max(1, workers)
    options.threading.max_intra_op_parallelism = 1
    yield from made.with_options(options).as_numpy_iterator()


def maker(dataset: ComposedDataset) -> Callable[[Any], tuple[Any, Any]]:
    """What makes an image (uint8, canvas canvas 3) and its label of an example's number."""
    if isinstance(dataset.compose, ScaleBlend):
        return scaled_digit(dataset)
    from benchmarks.peers.tf_photographs import photograph

    return photograph(dataset)


def scaled_digit(dataset: ComposedDataset) -> Callable[[Any], tuple[Any, Any]]:
    """A digit scaled bicubically and blended over a random crop of a photograph.

    The bicubic kernel of `tf.image.resize` has a = -0.5 where OpenCV's has -0.75, so the digits'
    edges differ a little; the work is the same.
    """
    compose = dataset.compose
    assert isinstance(compose, ScaleBlend)
    digits = tf.constant(np.asarray(dataset.source.images)[..., None])
    labels = tf.constant(dataset.source.labels)
    photos = tf.constant(dataset.resident.photos)
    sides = tf.constant(compose.sides, tf.int32)
    canvas, opacity = compose.canvas, compose.opacity

    def below(bound: Any) -> Any:
        return tf.random.uniform((), 0, bound, tf.int32)

    def composed(index: Any) -> tuple[Any, Any]:
        margin = compose.photo_side - canvas + 1
        start = tf.stack([below(len(dataset.resident.photos)), below(margin), below(margin), 0])
        background = tf.slice(photos, start, (1, canvas, canvas, 3))[0]
        side = sides[below(len(compose.sides))]
        room = canvas - side
        centered = compose.placement == "center"
        row, column = (room // 2, room // 2) if centered else (below(room + 1), below(room + 1))
        scaled = tf.image.resize(digits[index], tf.stack([side, side]), method="bicubic")
        scaled = tf.clip_by_value(tf.round(scaled), 0, 255)
        square = tf.slice(background, tf.stack([row, column, 0]), tf.stack([side, side, 3]))
        mixed = tf.round((1 - opacity) * tf.cast(square, tf.float32) + opacity * scaled)
        middle = tf.concat(
            [
                background[row : row + side, :column],
                tf.cast(mixed, tf.uint8),
                background[row : row + side, column + side :],
            ],
            axis=1,
        )
        image = tf.concat([background[:row], middle, background[row + side :]], axis=0)
        return tf.ensure_shape(image, (canvas, canvas, 3)), labels[index]

    return composed
