"""A trained network as an object: images in, classes, logits or features out."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32, UInt8

from jaxres.api.process import left_as_it_was
from jaxres.config import Config
from jaxres.data.inputs import normalise
from jaxres.data.readers.encoded import ImageArrays, ImageFiles
from jaxres.evaluation.evaluator import Evaluator
from jaxres.evaluation.predict import as_dataset, on_images, require_files, square_side
from jaxres.evaluation.run import open_checkpoint, require_finite
from jaxres.evaluation.step import make_features_step, make_outputs_step
from jaxres.runtime.errors import InputError

STEPS = {"logits": make_outputs_step, "features": make_features_step}
Images = np.ndarray | Sequence[np.ndarray] | str | Path | Sequence[str | Path]


class Prediction(NamedTuple):
    """What a network sees in n images."""

    labels: Int32[np.ndarray, " n"]
    classes: list[str]  # the labels' names
    probabilities: Float32[np.ndarray, "n classes"]


class Classifier:
    """The network of a checkpoint with its weights, and how its images are made ready.

    For JAX: `apply(params, stats, images, train=False)` gives logits and statistics, of images that
    `normalise` made ready; `params` and `stats` are nested dicts of arrays on the devices.

    Methods take uint8 images, RGB, of any size: an array (n, h, w, 3), or (n, h, w) if grey, a list
    of arrays of differing sizes, a file name, or a list of them. They are brought to the run's
    size as evaluation brings them, and computed in its batches on all devices.
    """

    def __init__(self, run_dir: str | Path, checkpoint: str | int = "best"):
        """Read a checkpoint (`best`, `last` or a step) of a run or of imported weights.

        Raises:
            InputError: no such run or checkpoint, or a damaged one.
        """
        with left_as_it_was():
            self._opened = open_checkpoint(Path(run_dir), str(checkpoint))
            self._loaded = on_images(self._opened, ImageArrays([], None))
        self._evaluators: dict[str, Evaluator] = {}

    @property
    def config(self) -> Config:
        """The settings of the run."""
        return self._opened.config

    @property
    def step(self) -> int:
        """The checkpoint's."""
        return self._opened.step

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the labels 0, 1, ... stand for."""
        return self._loaded.dataset.class_names

    @property
    def params(self) -> Any:
        """The weights: a nested dict of float32 arrays."""
        return self._loaded.variables["params"]

    @property
    def stats(self) -> Any:
        """Running means and variances of batch norm: a nested dict of float32 arrays."""
        return self._loaded.variables["stats"]

    @property
    def apply(self) -> Callable[..., Any]:
        """The network as a pure function; see `jaxres.models.pure.Net`."""
        return self._loaded.net.apply

    def normalise(self, images: Any) -> Array:
        """What `apply` takes, of uint8 images (n, side, side, 3) of the run's size."""
        return normalise(self._loaded.config, jnp.asarray(images))

    def predict(self, images: Images) -> Prediction:
        """The class of each image, and the probabilities of all classes (the softmax).

        Of multi-label data they are of each class by itself (the sigmoid), and the class is the
        likeliest.

        Raises:
            InputError: an image cannot be used, or a probability is not finite.
        """
        logits = self.logits(images)
        of_all = jax.nn.sigmoid if self._opened.multi_label else jax.nn.softmax
        probabilities = np.asarray(of_all(logits))
        require_finite(probabilities, self._loaded)
        labels = probabilities.argmax(-1).astype(np.int32)
        return Prediction(labels, [self.class_names[k] for k in labels], probabilities)

    def logits(self, images: Images) -> Float32[np.ndarray, "n classes"]:
        """What the last layer gives.

        Raises:
            InputError: an image cannot be used.
        """
        return self._outputs("logits", images)

    def features(self, images: Images) -> Float32[np.ndarray, "n h w channels"]:
        """The maps that the network's head reads; their mean over h and w is the usual vector.

        Raises:
            InputError: an image cannot be used.
        """
        return self._outputs("features", images)

    def _outputs(self, what: str, images: Images) -> np.ndarray:
        with left_as_it_was():
            loaded = self._loaded
            dataset = as_dataset(self._opened, _read(self.config, images))
            if what not in self._evaluators:
                self._evaluators[what] = Evaluator(
                    loaded.net, loaded.config, loaded.mesh, STEPS[what]
                )
            return self._evaluators[what].on(dataset).predict(loaded.variables)[what]


def load(run_dir: str | Path, checkpoint: str | int = "best") -> Classifier:
    """The network of a run, or of imported weights; see `Classifier`.

    Raises:
        InputError: no such run or checkpoint, or a damaged one.
    """
    return Classifier(run_dir, checkpoint)


def _read(config: Config, images: Images) -> ImageArrays | ImageFiles:
    """The images in the form that the host's renderer reads.

    Raises:
        InputError: there is none, or one is not an image.
    """
    side = square_side(config)
    if isinstance(images, str | Path):
        images = [images]
    if hasattr(images, "ndim"):
        images = _as_batch(np.asarray(images))
    if len(images) == 0:
        raise InputError("no images were given; allowed: one or more")
    if isinstance(images[0], str | Path):
        files = [Path(str(each)) for each in images]
        require_files(files)
        return ImageFiles(files, side)
    return ImageArrays([_as_rgb(k, each) for k, each in enumerate(images)], side)


def _as_batch(images: np.ndarray) -> np.ndarray:
    """Raises InputError where an array is one image: its rows would pass for grey images."""
    if images.ndim == 4 or (images.ndim == 3 and images.shape[-1] != 3):
        return images
    raise InputError(
        f"images have shape {images.shape}; allowed: (n, height, width, 3), or (n, height, width) "
        "if grey; of one image, [image]"
    )


def _as_rgb(k: int, image: Any) -> UInt8[np.ndarray, "h w 3"]:
    """Raises InputError where an image is not uint8, RGB or grey."""
    array = np.asarray(image)
    if array.ndim == 2 or array.shape[2:] == (1,):
        array = np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=-1)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3 or not array.size:
        raise InputError(
            f"image {k} has shape {array.shape} and type {array.dtype}; allowed: uint8 of shape "
            "(height, width, 3), or (height, width) if grey"
        )
    return array
