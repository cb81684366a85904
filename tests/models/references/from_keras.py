"""The networks of keras.applications, computing in float64 on JAX."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
import numpy as np
import optax

from jaxres.weights import keras as keras_weights
from tests.models.cases import CLASSES, LABELS, Case
from tests.models.drawn import Weights

os.environ["KERAS_BACKEND"] = "jax"
import keras  # pyright: ignore[reportMissingImports]
from keras.src.backend.common import dtypes  # pyright: ignore[reportMissingImports]

APPLICATIONS = {
    "keras_resnet50": keras.applications.ResNet50,
    "vgg16": keras.applications.VGG16,
    "xception": keras.applications.Xception,
}


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Where a model is built and traced, or some of its layers compute in float32."""
    # Keras takes no 64-bit types to be the wider ones on JAX, so its batch norm would not use them.
    narrowed = mock.patch.dict(dtypes.BIT64_TO_BIT32_DTYPE, clear=True)
    with jax.enable_x64(True), narrowed:
        _compute_in("float64")
        try:
            yield
        finally:
            _compute_in("float32")


def _compute_in(name: str) -> None:
    keras.config.set_floatx(name)
    # Made of floatx when a layer first asks for it, it would stay what it was then.
    keras.config.set_dtype_policy(name)


class KerasReference:
    """A Keras model, its variables found by the names under which weights are imported."""

    def __init__(self, model: Any, name: str):
        self.model = model
        self.paths = {
            f"{layer.name}/{number}": variable.path
            for layer in model.layers
            for number, variable in enumerate(layer.variables)
        }
        layout = keras_weights.layout(name, [*self.paths], named=True, published=False)
        assert layout is not None
        self.layout = layout

    def logits(self, weights: Weights, images: np.ndarray) -> np.ndarray:
        """In evaluation."""
        with float64():
            evaluate = jax.jit(lambda *arrays: self._call(*arrays, training=False))
            return np.asarray(evaluate(*self._arrays(weights), images.astype(np.float64)))

    def gradients(self, weights: Weights, images: np.ndarray) -> Weights:
        """In training, of the mean cross-entropy, with the batch's own statistics."""

        def loss(trained: Any, tracked: Any, images: jax.Array) -> jax.Array:
            outputs = self._call(trained, tracked, images, training=True)
            return optax.softmax_cross_entropy_with_integer_labels(outputs, LABELS).mean()

        with float64():
            trained, tracked = self._arrays(weights)
            found = jax.jit(jax.grad(loss))(trained, tracked, images.astype(np.float64))
        by_path = {
            variable.path: np.asarray(gradient)
            for variable, gradient in zip(self.model.trainable_variables, found, strict=True)
        }
        paths = {name: self._path(name) for name in weights}
        return {
            name: _swapped(path, by_path[path]) for name, path in paths.items() if path in by_path
        }

    def _path(self, name: str) -> str:
        return self.paths[self.layout.theirs(name)]

    def _call(self, trained: Any, tracked: Any, images: Any, *, training: bool) -> Any:
        return self.model.stateless_call(trained, tracked, images, training=training)[0]

    def _arrays(self, weights: Weights) -> tuple[list[np.ndarray], list[np.ndarray]]:
        by_path = {self._path(name): values for name, values in weights.items()}
        assert len(by_path) == len(weights)
        trained, tracked = (
            [
                _swapped(variable.path, by_path.pop(variable.path)).astype(np.float64)
                for variable in variables
            ]
            for variables in (self.model.trainable_variables, self.model.non_trainable_variables)
        )
        assert not by_path
        return trained, tracked


@float64()
def reference(case: Case) -> KerasReference:
    """The network of the same name; a VGG with the dense layers asked for."""
    keras.utils.clear_session()  # numbers of layers without names start again
    options = {"weights": None, "input_shape": (case.size, case.size, 3)}
    application = APPLICATIONS[case.model]
    if "dense" not in case.options:
        model = application(classes=CLASSES, classifier_activation=None, **options)
        return KerasReference(model, case.model)
    body = application(include_top=False, **options)
    rows = keras.layers.Flatten()(body.output)
    for place, outputs in enumerate(case.options["dense"]):
        rows = keras.layers.Dense(outputs, "relu", name=f"fc{place + 1}")(rows)
    logits = keras.layers.Dense(CLASSES, name="predictions")(rows)
    return KerasReference(keras.Model(body.input, logits), case.model)


def _swapped(path: str, values: np.ndarray) -> np.ndarray:
    """A depthwise kernel of theirs is (height, width, channels, 1), of ours (..., 1, channels)."""
    return values.swapaxes(2, 3) if path.endswith("depthwise_kernel") else values
