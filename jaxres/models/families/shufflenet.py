"""ShuffleNetV2 (Ma et al., "Practical Guidelines for Efficient CNN Architecture Design", 2018)."""

from functools import partial

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from jaxres.models.blocks import ConvNorm
from jaxres.models.network import Head, Network
from jaxres.models.options import Options
from jaxres.ops import pool

DEPTHS = (4, 8, 4)
STEM, LAST = 24, 1024  # channels


class Branch(nnx.Module):
    """1x1, depthwise 3x3 (linear) and 1x1 convolutions (figure 3c)."""

    def __init__(
        self, channels: int, features: int, options: Options, *, stride: int, rngs: nnx.Rngs
    ):
        layer = partial(ConvNorm, axis_name=options.axis_name, dtype=options.dtype, rngs=rngs)
        self.first = layer(channels, features, 1)
        self.depthwise = layer(features, features, 3, stride=stride, padding=1, groups=features)
        self.last = layer(features, features, 1)

    def __call__(
        self, images: Float[Array, "n h w ci"], *, train: bool
    ) -> Float[Array, "n oh ow co"]:
        """Rectified after the two 1x1 convolutions."""
        maps = self.first(images, train=train, relu=True)
        return self.last(self.depthwise(maps, train=train), train=train, relu=True)


class Shortcut(nnx.Module):
    """Depthwise 3x3 of stride 2, then 1x1, beside the branch of a block that halves (figure 3d)."""

    def __init__(self, channels: int, features: int, options: Options, *, rngs: nnx.Rngs):
        layer = partial(ConvNorm, axis_name=options.axis_name, dtype=options.dtype, rngs=rngs)
        self.depthwise = layer(channels, channels, 3, stride=2, padding=1, groups=channels)
        self.last = layer(channels, features, 1)

    def __call__(
        self, images: Float[Array, "n h w ci"], *, train: bool
    ) -> Float[Array, "n oh ow co"]:
        """Rectified at the end."""
        return self.last(self.depthwise(images, train=train), train=train, relu=True)


class Block(nnx.Module):
    """Half of the channels pass through, or all through a shortcut where the block halves."""

    def __init__(
        self, channels: int, features: int, options: Options, *, halves: bool, rngs: nnx.Rngs
    ):
        half = features // 2
        self.shortcut = Shortcut(channels, half, options, rngs=rngs) if halves else None
        self.branch = Branch(
            channels if halves else half, half, options, stride=2 if halves else 1, rngs=rngs
        )

    def __call__(
        self, images: Float[Array, "n h w ci"], *, train: bool
    ) -> Float[Array, "n oh ow co"]:
        """Both sides, their channels interleaved."""
        if self.shortcut is not None:
            kept, taken = self.shortcut(images, train=train), images
        else:
            kept, taken = jnp.split(images, 2, axis=-1)
        sides = jnp.stack([kept, self.branch(taken, train=train)], axis=-1)
        return sides.reshape(*sides.shape[:-2], -1)


class ShuffleNetV2(Network):
    """A convolution of stride 2, a max pool, three stages of blocks, a 1x1 convolution, a head."""

    def __init__(self, widths: tuple[int, int, int], options: Options, *, rngs: nnx.Rngs):
        layer = partial(ConvNorm, axis_name=options.axis_name, dtype=options.dtype, rngs=rngs)
        self.stem = layer(3, STEM, 3, stride=2, padding=1)
        channels, size = STEM, -(-options.image_size // 4)
        stages = []
        for width, depth in zip(widths, DEPTHS, strict=True):
            blocks = []
            for place in range(depth):
                blocks.append(Block(channels, width, options, halves=place == 0, rngs=rngs))
                channels = width
            stages.append(nnx.List(blocks))
            size = -(-size // 2)
        self.stages = nnx.List(stages)
        self.last = layer(channels, LAST, 1)
        self.head = Head(LAST, size, options, rngs=rngs)

    def features(
        self, images: Float[Array, "n h w 3"], *, train: bool, key: PRNGKeyArray | None = None
    ) -> Float[Array, "n oh ow 1024"]:
        """The last feature maps, 1/32 of the image's side."""
        del key
        maps = self.tapped("stem", self.stem(images, train=train, relu=True))
        maps = pool.max_pool(maps, window=3, stride=2, padding=1)
        maps = self.through_stages(maps, train=train)
        return self.tapped("last", self.last(maps, train=train, relu=True))


MODELS = {
    "shufflenet_v2_x0_5": partial(ShuffleNetV2, (48, 96, 192)),
    "shufflenet_v2_x1_0": partial(ShuffleNetV2, (116, 232, 464)),
}
