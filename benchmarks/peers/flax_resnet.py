"""ResNet as a user of Flax NNX writes it: its own layers, without our convolution core."""

from typing import Any

import jax
from flax import nnx

from benchmarks.peers.resnets import Residual

he_normal_fan_out = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")
Options = dict  # dtype and rngs, as every layer takes them


def conv(channels: int, features: int, window: int, stride: int, options: Options) -> nnx.Conv:
    """A convolution without bias, padded on every side alike."""
    return nnx.Conv(
        channels,
        features,
        (window, window),
        stride,
        padding=window // 2,
        use_bias=False,
        kernel_init=he_normal_fan_out,
        **options,
    )


def norm(features: int, options: Options) -> nnx.BatchNorm:
    """Batch normalisation with the momentum of torch's and ours."""
    return nnx.BatchNorm(features, use_running_average=False, momentum=0.9, epsilon=1e-5, **options)


class Block(nnx.Module):
    """Convolutions, each normalised, and a shortcut; the stride is in the first 3x3."""

    def __init__(self, channels: int, width: int, stride: int, variant: Residual, options: Options):
        inner = width * variant.width_factor
        if variant.bottleneck:
            features = 4 * width
            sizes = [(channels, inner, 1, 1), (inner, inner, 3, stride), (inner, features, 1, 1)]
        else:
            features = width
            sizes = [(channels, inner, 3, stride), (inner, features, 3, 1)]
        self.convs = nnx.List([conv(*size, options) for size in sizes])
        self.norms = nnx.List([norm(size[1], options) for size in sizes])
        if stride == 1 and channels == features:
            self.shortcut = None
        else:
            shortcut = conv(channels, features, 1, stride, options), norm(features, options)
            self.shortcut = nnx.Sequential(*shortcut)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Add the residual to the shortcut, then apply ReLU."""
        maps, last = images, len(self.convs) - 1
        for place, (convolve, normalise) in enumerate(zip(self.convs, self.norms, strict=True)):
            maps = normalise(convolve(maps))
            maps = maps if place == last else nnx.relu(maps)
        return nnx.relu(maps + (images if self.shortcut is None else self.shortcut(images)))


class ResNet(nnx.Module):
    """Stem, four stages of blocks, the average over positions and a linear layer."""

    def __init__(
        self, variant: Residual, *, classes: int, dtype: jax.typing.DTypeLike, rngs: nnx.Rngs
    ):
        options: Options = {"dtype": dtype, "rngs": rngs}
        self.stem = conv(3, 64, 7, 2, options)
        self.norm = norm(64, options)
        channels, blocks = 64, []
        for stage, depth in enumerate(variant.depths):
            width = 64 * 2**stage
            for place in range(depth):
                stride = 2 if stage > 0 and place == 0 else 1
                blocks.append(Block(channels, width, stride, variant, options))
                channels = 4 * width if variant.bottleneck else width
        self.blocks = nnx.List(blocks)
        self.head = nnx.Linear(channels, classes, **options)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits of normalised NHWC images, training."""
        maps = nnx.relu(self.norm(self.stem(images)))
        pads: Any = ((1, 1), (1, 1))  # annotated as a word only
        maps = nnx.max_pool(maps, (3, 3), (2, 2), pads)
        for block in self.blocks:
            maps = block(maps)
        return self.head(maps.mean((1, 2)))
