"""A network of your own: one convolution and a head."""

from flax import nnx

import jaxres
from jaxres.models.blocks import ConvNorm
from jaxres.models.network import Head, Network
from jaxres.models.options import Options


@jaxres.register_model("small_net")
class SmallNet(Network):
    """One convolution and a head."""

    smallest_image = 8

    def __init__(self, options: Options, *, rngs: nnx.Rngs):
        norm = {"axis_name": options.axis_name, "dtype": options.dtype}
        self.stem = ConvNorm(3, 16, 3, stride=2, padding=1, rngs=rngs, **norm)
        self.head = Head(16, -(-options.image_size // 2), options, rngs=rngs)

    def features(self, images, *, train, key=None):
        """The last feature maps; `seen` shows each layer's to `jaxres show attention`."""
        return self.tapped("stem", self.stem(images, train=train, relu=True))
