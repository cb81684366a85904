"""Residual networks for images of 32 pixels."""

from functools import partial

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from jaxres.models.blocks import BatchNorm, Conv, ConvNorm
from jaxres.models.network import Head, Network, Published
from jaxres.models.options import Options

WIDTHS = (16, 32, 64)


class PaddedBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut without parameters (He et al. 2015, option A).

    Where the block halves, the shortcut takes every second row and column and pads the channels
    with zeros, as many before as after.
    """

    def __init__(
        self, channels: int, features: int, options: Options, *, stride: int, rngs: nnx.Rngs
    ):
        layer = partial(ConvNorm, axis_name=options.axis_name, dtype=options.dtype, rngs=rngs)
        self.first = layer(channels, features, 3, stride=stride, padding=1)
        self.second = layer(features, features, 3, padding=1)
        self.stride = stride
        self.missing = features - channels

    def __call__(
        self, images: Float[Array, "n h w ci"], *, train: bool
    ) -> Float[Array, "n oh ow co"]:
        """Add the residual to the shortcut, then apply ReLU."""
        kept = images[:, :: self.stride, :: self.stride]
        before = self.missing // 2
        kept = jnp.pad(kept, ((0, 0), (0, 0), (0, 0), (before, self.missing - before)))
        residual = self.first(images, train=train, relu=True)
        return self.second(residual, kept, train=train, relu=True)


class CifarResNet(Network):
    """He et al. 2015, section 4.2: 6n + 2 layers, widths 16, 32 and 64."""

    published = Published("cifar10", 32, 10)

    def __init__(self, depth: int, options: Options, *, rngs: nnx.Rngs):
        self.stem = ConvNorm(
            3, WIDTHS[0], 3, padding=1, axis_name=options.axis_name, dtype=options.dtype, rngs=rngs
        )
        stages = []
        channels = WIDTHS[0]
        for width in WIDTHS:
            blocks = []
            for _ in range((depth - 2) // 6):
                stride = 1 if width == channels else 2
                blocks.append(PaddedBlock(channels, width, options, stride=stride, rngs=rngs))
                channels = width
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)
        self.head = Head(channels, -(-options.image_size // 4), options, rngs=rngs)

    def features(
        self, images: Float[Array, "n h w 3"], *, train: bool, key: PRNGKeyArray | None = None
    ) -> Float[Array, "n oh ow 64"]:
        """The last feature maps, a quarter of the image's side."""
        del key
        maps = self.tapped("stem", self.stem(images, train=train, relu=True))
        return self.through_stages(maps, train=train)


class PreActivationBlock(nnx.Module):
    """Norm and ReLU before each of two 3x3 convolutions (figure 1c).

    Where channels or size change, the shortcut is a 1x1 convolution of the activated input.
    """

    def __init__(
        self, channels: int, features: int, options: Options, *, stride: int, rngs: nnx.Rngs
    ):
        conv = partial(Conv, dtype=options.dtype, rngs=rngs)
        norm = partial(BatchNorm, axis_name=options.axis_name, dtype=options.dtype)
        self.norm1 = norm(channels)
        self.conv1 = conv(channels, features, 3, stride=stride, padding=1)
        self.norm2 = norm(features)
        self.conv2 = conv(features, features, 3, padding=1)
        projects = channels != features
        self.shortcut = conv(channels, features, 1, stride=stride) if projects else None

    def __call__(
        self, images: Float[Array, "n h w ci"], *, train: bool
    ) -> Float[Array, "n oh ow co"]:
        """Add the residual to the shortcut."""
        active = self.norm1(images, train=train, relu=True)
        kept = images if self.shortcut is None else self.shortcut(active)
        residual = self.norm2(self.conv1(active), train=train, relu=True)
        return kept + self.conv2(residual)


class CifarWideResNet(Network):
    """Zagoruyko and Komodakis, "Wide Residual Networks" (2016): 6n + 4 layers, k times as wide."""

    def __init__(self, depth: int, factor: int, options: Options, *, rngs: nnx.Rngs):
        self.stem = Conv(3, WIDTHS[0], 3, padding=1, dtype=options.dtype, rngs=rngs)
        stages = []
        channels = WIDTHS[0]
        for stage, width in enumerate(WIDTHS):
            blocks = []
            for place in range((depth - 4) // 6):
                stride = 2 if stage > 0 and place == 0 else 1
                made = PreActivationBlock(
                    channels, width * factor, options, stride=stride, rngs=rngs
                )
                blocks.append(made)
                channels = width * factor
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)
        self.norm = BatchNorm(channels, axis_name=options.axis_name, dtype=options.dtype)
        self.head = Head(channels, -(-options.image_size // 4), options, rngs=rngs)

    def features(
        self, images: Float[Array, "n h w 3"], *, train: bool, key: PRNGKeyArray | None = None
    ) -> Float[Array, "n oh ow k"]:
        """The last feature maps, a quarter of the image's side."""
        del key
        maps = self.tapped("stem", self.stem(images))
        maps = self.through_stages(maps, train=train)
        return self.tapped("norm", self.norm(maps, train=train, relu=True))


MODELS = {
    **{f"cifar_resnet{depth}": partial(CifarResNet, depth) for depth in (20, 32, 44, 56, 110)},
    "cifar_wide_resnet28_10": partial(CifarWideResNet, 28, 10),
    "cifar_wide_resnet16_8": partial(CifarWideResNet, 16, 8),
}
