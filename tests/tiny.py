"""A network that compiles in a second, registered as `tiny`; run as a module, the CLI with it."""

import sys
from functools import partial

from flax import nnx

from jaxres.models import registry
from jaxres.models.blocks import ConvNorm
from jaxres.models.network import Head, Network


class Tiny(Network):
    """Two strided convolutions with batch norm, and a head."""

    smallest_image = 28

    def __init__(self, options, *, rngs):
        layer = partial(
            ConvNorm,
            stride=2,
            padding=1,
            axis_name=options.axis_name,
            dtype=options.dtype,
            rngs=rngs,
        )
        self.conv1 = layer(3, 8, 3)
        self.conv2 = layer(8, 16, 3)
        self.head = Head(16, -(-options.image_size // 4), options, rngs=rngs)

    def features(self, images, *, train, key=None):
        """The last feature maps."""
        maps = nnx.relu(self.conv1(images, train=train))
        return nnx.relu(self.conv2(maps, train=train))


registry._MODELS["tiny"] = partial(Tiny)

if __name__ == "__main__":
    from jaxres.cli import main

    sys.exit(main())
