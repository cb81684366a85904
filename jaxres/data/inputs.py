"""From a batch to what a network takes: images, rendered where they are planned, and normalised."""

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from jaxres.config import Config
from jaxres.data.compose import composition, render_device
from jaxres.data.composed import Batch
from jaxres.ops.target import materialise

Resident = composition.Resident | None


def images_of(config: Config, resident: Resident, batch: Batch) -> UInt8[Array, "n side side 3"]:
    """The images of a batch: as the host rendered them, or rendered here from the plan."""
    if resident is None:
        return batch["image"]
    return render_device.render(
        batch["plan"], batch.get("augmentation"), resident, data=config.data
    )


def normalisation(config: Config) -> tuple[int, tuple[float, ...], tuple[float, ...]]:
    """What `normalise` depends on: data.divisor, and the mean and deviation by channel.

    A mean or standard deviation that the settings leave open is 0 or 1.
    """
    data = config.data
    return data.divisor, data.mean or (0.0, 0.0, 0.0), data.std or (1.0, 1.0, 1.0)


def normalise(config: Config, images: UInt8[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """(pixels / divisor - mean) / deviation in the model's dtype, as `normalisation` has them.

    Rendered once for all readers.
    """
    divisor, *moments = normalisation(config)
    mean, std = (jnp.array(each) for each in moments)
    values = images.astype(jnp.float32) * (1 / (divisor * std)) - mean / std
    return materialise(values.astype(config.model.dtype))
