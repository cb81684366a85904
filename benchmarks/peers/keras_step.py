"""The peer `keras`: Keras 3 on JAX, `compile` with jit and `train_on_batch` on resident arrays."""

import os
import time
from typing import Any

import jax

from benchmarks.peers import Peer
from benchmarks.peers.resnets import RESNETS, Residual
from benchmarks.timing.workload import LEARNING_RATE, MEAN, MOMENTUM, STD, Workload

os.environ["KERAS_BACKEND"] = "jax"
import keras  # pyright: ignore[reportMissingImports]
from keras import layers  # pyright: ignore[reportMissingImports]

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
OWN_MODELS = {
    "resnet50": keras.applications.ResNet50,
    "resnet101": keras.applications.ResNet101,
    "resnet152": keras.applications.ResNet152,
}


def build(work: Workload, platform: str) -> Peer:
    """Build and compile; `compile_s` is the time of the first step.

    `train_on_batch` fetches the loss at every step.
    """
    keras.utils.clear_session()
    keras.config.set_dtype_policy(POLICIES[work.dtype])
    keras.utils.set_random_seed(0)
    model, source = network(work.model, work.image_size, work.classes)
    model.compile(
        optimizer=keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=True,
    )
    device = jax.devices(platform)[0]
    images, labels = jax.device_put((work.images, work.labels), device)

    def run(steps: int) -> None:
        for _ in range(steps):
            model.train_on_batch(images, labels)
        jax.block_until_ready([variable.value for variable in model.variables])

    began = time.perf_counter()
    run(1)
    settings = {"model": source, "step": "train_on_batch", "policy": POLICIES[work.dtype]}
    return Peer(run, keras.__version__, settings, time.perf_counter() - began)


def network(name: str, image_size: int, classes: int) -> tuple[Any, str]:
    """A model from uint8 images to float32 logits, and which it is.

    `keras.applications` has version 1: the stride is in a bottleneck's first 1x1 convolution (5 %
    less arithmetic) and convolutions have biases. What it lacks is built here as version 1.5.
    """
    images = keras.Input((image_size, image_size, 3), dtype="uint8")
    scale = [1 / (255 * std) for std in STD]
    offset = [-mean / std for mean, std in zip(MEAN, STD, strict=True)]
    values = layers.Rescaling(scale, offset)(images)
    if name in OWN_MODELS:
        made = OWN_MODELS[name](
            weights=None, input_tensor=values, classes=classes, classifier_activation=None
        )
        logits, source = made.output, "keras.applications"
    else:
        logits, source = _resnet(values, RESNETS[name], classes), "benchmarks.peers.keras_step"
    return keras.Model(images, layers.Activation("linear", dtype="float32")(logits)), source


def _resnet(maps: Any, variant: Residual, classes: int) -> Any:
    maps = layers.ReLU()(_conv_norm(maps, 64, 7, 2))
    maps = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(maps))
    for stage, depth in enumerate(variant.depths):
        for place in range(depth):
            stride = 2 if stage > 0 and place == 0 else 1
            maps = _block(maps, 64 * 2**stage, stride, variant)
    return layers.Dense(classes)(layers.GlobalAveragePooling2D()(maps))


def _block(maps: Any, width: int, stride: int, variant: Residual) -> Any:
    inner = width * variant.width_factor
    features = 4 * width if variant.bottleneck else width
    if variant.bottleneck:
        residual = layers.ReLU()(_conv_norm(maps, inner, 1, 1))
        residual = layers.ReLU()(_conv_norm(residual, inner, 3, stride))
        residual = _conv_norm(residual, features, 1, 1)
    else:
        residual = layers.ReLU()(_conv_norm(maps, inner, 3, stride))
        residual = _conv_norm(residual, features, 3, 1)
    if stride > 1 or maps.shape[-1] != features:
        maps = _conv_norm(maps, features, 1, stride)
    return layers.ReLU()(layers.Add()([residual, maps]))


def _conv_norm(maps: Any, features: int, window: int, stride: int) -> Any:
    """Padded on every side alike, as torch does, where "same" differs (stride 2)."""
    if window > 1 and stride > 1:
        maps, padding = layers.ZeroPadding2D(window // 2)(maps), "valid"
    else:
        padding = "same"
    maps = layers.Conv2D(features, window, stride, padding=padding, use_bias=False)(maps)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(maps)
