"""What both sides of a comparison of training steps train: one batch of random images."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

from jaxres.config import Config, DataConfig, ModelConfig, OptimConfig, TrainConfig
from jaxres.runtime.errors import InputError

# ImageNet's, as every side applies to the uint8 images inside of its step.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DTYPES = ("float32", "bfloat16")
LEARNING_RATE, MOMENTUM = 1e-3, 0.9  # SGD, without weight decay


class Workload(NamedTuple):
    """A model with a batch of one size; `images` and `labels` are those of the peers."""

    model: str
    image_size: int
    batch_size: int
    dtype: str
    classes: int

    @property
    def images(self) -> UInt8[np.ndarray, "n size size 3"]:
        """Random images."""
        shape = (self.batch_size, self.image_size, self.image_size, 3)
        return np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    @property
    def labels(self) -> Int32[np.ndarray, " n"]:
        """Random classes."""
        return np.random.default_rng(1).integers(0, self.classes, self.batch_size, np.int32)


def settings(work: Workload, *, mode: str = "jit", steps_per_call: int = 1) -> Config:
    """The settings of our run with this workload; `mode` is `train.parallel`.

    Raises:
        InputError: the size of the images or the dtype is not allowed.
    """
    try:
        return Config(
            data=DataConfig(
                batch_size=work.batch_size,
                canvas=work.image_size,
                digit_side=(work.image_size // 2,),
                mean=MEAN,
                std=STD,
            ),
            model=ModelConfig(name=work.model, dtype=work.dtype),  # pyright: ignore[reportArgumentType]
            optim=OptimConfig(name="sgd", learning_rate=LEARNING_RATE, momentum=MOMENTUM),
            train=TrainConfig(parallel=mode, steps_per_call=steps_per_call),  # pyright: ignore[reportArgumentType]
        )
    except ValueError as error:
        raise InputError(str(error)) from None
