"""A network that compiles in a second, registered as `tiny`; run as a module, the CLI with it."""

import sys

import jax.numpy as jnp
from flax import nnx

from jaxres.models import registry
from jaxres.models.blocks import ConvNorm, Head


class Tiny(nnx.Module):
    """Two strided convolutions with batch norm, and a head."""

    def __init__(self, classes, image_size, head, dropout, dtype, sync_batch_norm, rngs):
        axis_name = "data" if sync_batch_norm else None
        options = {"stride": 2, "padding": 1, "axis_name": axis_name, "dtype": dtype, "rngs": rngs}
        self.conv1 = ConvNorm(3, 8, 3, **options)
        self.conv2 = ConvNorm(8, 16, 3, **options)
        size = -(-image_size // 4)
        self.head = Head(16, size, classes, kind=head, dropout=dropout, dtype=dtype, rngs=rngs)

    def __call__(self, images, *, train, key=None):
        maps = nnx.relu(self.conv1(images, train=train))
        maps = nnx.relu(self.conv2(maps, train=train))
        return self.head(maps, train=train, key=key)


def tiny(
    *,
    classes,
    image_size,
    stem="small",
    head="average",
    dropout=0.0,
    dtype=jnp.float32,
    sync_batch_norm=False,
    rngs,
):
    """The builder that the registry calls."""
    del stem
    return Tiny(classes, image_size, head, dropout, dtype, sync_batch_norm, rngs)


registry._MODELS["tiny"] = tiny

if __name__ == "__main__":
    from jaxres.cli import main

    sys.exit(main())
