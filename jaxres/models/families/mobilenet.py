"""MobileNetV2 (Sandler et al., "Inverted Residuals and Linear Bottlenecks", 2018)."""

from functools import partial

from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from jaxres.models.blocks import ConvNorm
from jaxres.models.network import Head, Network
from jaxres.models.options import Options

# Table 2: expansion, channels, number of blocks, stride of the first.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM, LAST = 32, 1280  # channels
RELU6_MAX = 6.0


class InvertedResidual(nnx.Module):
    """1x1 expansion, 3x3 depthwise convolution, linear 1x1 projection; a shortcut where it fits."""

    def __init__(
        self,
        channels: int,
        features: int,
        options: Options,
        *,
        expansion: int,
        stride: int,
        rngs: nnx.Rngs,
    ):
        layer = partial(ConvNorm, axis_name=options.axis_name, dtype=options.dtype, rngs=rngs)
        inner = channels * expansion
        self.expand = layer(channels, inner, 1) if expansion > 1 else None
        self.depthwise = layer(inner, inner, 3, stride=stride, padding=1, groups=inner)
        self.project = layer(inner, features, 1)
        self.adds = stride == 1 and channels == features

    def __call__(
        self, images: Float[Array, "n h w ci"], *, train: bool
    ) -> Float[Array, "n oh ow co"]:
        """The projection, added to the input where sizes and channels are equal."""
        maps = images
        if self.expand is not None:
            maps = self.expand(maps, train=train, relu=True, max_value=RELU6_MAX)
        maps = self.depthwise(maps, train=train, relu=True, max_value=RELU6_MAX)
        return self.project(maps, images if self.adds else None, train=train)


class MobileNetV2(Network):
    """A convolution of stride 2, seventeen inverted residuals, a 1x1 convolution and a head."""

    def __init__(self, options: Options, *, rngs: nnx.Rngs):
        layer = partial(ConvNorm, axis_name=options.axis_name, dtype=options.dtype, rngs=rngs)
        self.stem = layer(3, STEM, 3, stride=2, padding=1)
        self.blocks = nnx.List([])
        channels, size = STEM, -(-options.image_size // 2)
        for expansion, features, count, first_stride in STAGES:
            for place in range(count):
                stride = first_stride if place == 0 else 1
                block = InvertedResidual(
                    channels, features, options, expansion=expansion, stride=stride, rngs=rngs
                )
                self.blocks.append(block)
                channels, size = features, -(-size // stride)
        self.last = layer(channels, LAST, 1)
        self.head = Head(LAST, size, options, dropout=0.2, rngs=rngs)

    def features(
        self, images: Float[Array, "n h w 3"], *, train: bool, key: PRNGKeyArray | None = None
    ) -> Float[Array, "n oh ow 1280"]:
        """The last feature maps, 1/32 of the image's side."""
        del key
        relu6 = {"relu": True, "max_value": RELU6_MAX}
        maps = self.tapped("stem", self.stem(images, train=train, **relu6))
        for place, block in enumerate(self.blocks):
            maps = self.tapped(f"blocks.{place}", block(maps, train=train))
        return self.tapped("last", self.last(maps, train=train, **relu6))


MODELS = {"mobilenet_v2": partial(MobileNetV2)}
