"""Xception (Chollet, "Deep Learning with Depthwise Separable Convolutions", 2017), as in Keras."""

from functools import partial

import jax
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from jaxres.models.blocks import BatchNorm, Conv, ConvNorm
from jaxres.models.network import Head, Network, Published
from jaxres.models.options import Options
from jaxres.ops import pool

EPSILON = 1e-3  # Keras's default

# Figure 5: features of the two separable convolutions of each block that halves, and of the end.
ENTRY = ((128, 128), (256, 256), (728, 728))
MIDDLE, MIDDLE_BLOCKS = (728, 728, 728), 8
EXIT = (728, 1024)
LAST = (1536, 2048)


class Separable(nnx.Module):
    """A depthwise 3x3 convolution, a 1x1 convolution and batch norm."""

    def __init__(self, channels: int, features: int, options: Options, *, rngs: nnx.Rngs):
        conv = partial(Conv, dtype=options.dtype, rngs=rngs)
        self.depthwise = conv(channels, channels, 3, padding=1, groups=channels)
        self.pointwise = conv(channels, features, 1)
        self.norm = BatchNorm(
            features, epsilon=EPSILON, axis_name=options.axis_name, dtype=options.dtype
        )

    def __call__(
        self,
        images: Float[Array, "n h w ci"],
        shortcut: Float[Array, "n h w co"] | None = None,
        *,
        train: bool,
        relu: bool = False,
    ) -> Float[Array, "n h w co"]:
        """Convolve, normalise, add `shortcut`, then apply ReLU if asked."""
        maps = self.pointwise(self.depthwise(images))
        return self.norm(maps, shortcut, train=train, relu=relu)


class Block(nnx.Module):
    """Separable convolutions beside a shortcut; `halves`: a max pool, and a 1x1 in the shortcut.

    ReLU comes before each convolution; `relu_first` says whether before the first.
    """

    def __init__(
        self,
        channels: int,
        widths: tuple[int, ...],
        options: Options,
        *,
        halves: bool,
        relu_first: bool = True,
        rngs: nnx.Rngs,
    ):
        self.relu_first = relu_first
        project = partial(_layer(options, rngs), stride=2, padding="SAME")
        self.shortcut = project(channels, widths[-1], 1) if halves else None
        self.convs = nnx.List([])
        for width in widths:
            self.convs.append(Separable(channels, width, options, rngs=rngs))
            channels = width

    def __call__(
        self, images: Float[Array, "n h w ci"], *, train: bool
    ) -> Float[Array, "n oh ow co"]:
        """The convolutions, added to the shortcut."""
        maps = nnx.relu(images) if self.relu_first else images
        *inner, last = self.convs
        for conv in inner:
            maps = conv(maps, train=train, relu=True)
        if self.shortcut is None:
            return last(maps, images, train=train)
        maps = pool.max_pool(last(maps, train=train), window=3, stride=2, padding="SAME")
        return maps + self.shortcut(images, train=train)


def _layer(options: Options, rngs: nnx.Rngs) -> partial[ConvNorm]:
    return partial(
        ConvNorm, epsilon=EPSILON, axis_name=options.axis_name, dtype=options.dtype, rngs=rngs
    )


class Xception(Network):
    """Entry, middle and exit flow, and a head."""

    published = Published(None, 299, 1000)

    def __init__(self, options: Options, *, rngs: nnx.Rngs):
        layer = _layer(options, rngs)
        block = partial(Block, options=options, rngs=rngs)
        self.stem = nnx.List([layer(3, 32, 3, stride=2), layer(32, 64, 3)])
        size = (options.image_size - 1) // 2 - 2  # neither convolution is padded
        channels = 64
        self.blocks = nnx.List([])
        for place, widths in enumerate(ENTRY):
            self.blocks.append(block(channels, widths, halves=True, relu_first=place > 0))
            channels = widths[-1]
        for _ in range(MIDDLE_BLOCKS):
            self.blocks.append(block(channels, MIDDLE, halves=False))
        self.blocks.append(block(channels, EXIT, halves=True))
        for _ in range(len(ENTRY) + 1):
            size = -(-size // 2)
        self.last = nnx.List([])
        channels = EXIT[-1]
        for features in LAST:
            self.last.append(Separable(channels, features, options, rngs=rngs))
            channels = features
        self.head = Head(channels, size, options, rngs=rngs)

    def features(
        self, images: Float[Array, "n h w 3"], *, train: bool, key: PRNGKeyArray | None = None
    ) -> Float[Array, "n oh ow 2048"]:
        """The last feature maps, about 1/32 of the image's side."""
        del key
        maps: jax.Array = images
        for place, conv in enumerate(self.stem):
            maps = self.tapped(f"stem.{place}", conv(maps, train=train, relu=True))
        for place, block in enumerate(self.blocks):
            maps = self.tapped(f"blocks.{place}", block(maps, train=train))
        for place, conv in enumerate(self.last):
            maps = self.tapped(f"last.{place}", conv(maps, train=train, relu=True))
        return maps


MODELS = {"xception": partial(Xception)}
