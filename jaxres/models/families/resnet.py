"""Residual networks (He et al., "Deep Residual Learning for Image Recognition", 2015).

Version 1.5: a bottleneck's stride is in its 3x3 convolution, as in torchvision and every published
speed figure. Wide variants double the bottleneck (Zagoruyko and Komodakis, 2016). Keras's ResNet-50
is version 1 (stride in the first 1x1) with biases in the convolutions and an epsilon of its own.
"""

from functools import partial

from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from jaxres.models.blocks import BatchNorm, Conv, ConvNorm, conv_norm, conv_norm_pool
from jaxres.models.network import Head, Network
from jaxres.models.options import Options
from jaxres.ops import pool
from jaxres.ops.target import apart
from jaxres.runtime.errors import InputError

KERAS_EPSILON = 1.001e-5


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut (section 3.3)."""

    expansion = 1

    def __init__(
        self,
        channels: int,
        width: int,
        options: Options,
        *,
        stride: int,
        width_factor: int,
        keras: bool,
        rngs: nnx.Rngs,
    ):
        conv, norm, both = _layers(options, keras, rngs)
        inner = width * width_factor
        self.conv1 = conv(channels, inner, 3, stride=stride, padding=1)
        self.norm1 = norm(inner)
        self.conv2 = conv(inner, width, 3, padding=1)
        self.norm2 = norm(width, zero_scale=True)
        projects = stride > 1 or channels != width
        self.shortcut = both(channels, width, 1, stride=stride) if projects else None

    def __call__(
        self, images: Float[Array, "n h w ci"], *, train: bool
    ) -> Float[Array, "n oh ow co"]:
        """Add the residual to the shortcut, then apply ReLU."""
        residual = self.norm1(self.conv1(images), train=train, relu=True)
        kept = images if self.shortcut is None else self.shortcut(images, train=train)
        return self.norm2(self.conv2(residual), kept, train=train, relu=True)


class Bottleneck(nnx.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolutions and a shortcut (section 4.1, figure 5)."""

    expansion = 4

    def __init__(
        self,
        channels: int,
        width: int,
        options: Options,
        *,
        stride: int,
        width_factor: int,
        keras: bool,
        rngs: nnx.Rngs,
    ):
        conv, norm, both = _layers(options, keras, rngs)
        inner, features = width * width_factor, width * self.expansion
        first, second = (stride, 1) if keras else (1, stride)
        self.conv1 = conv(channels, inner, 1, stride=first)
        self.norm1 = norm(inner)
        self.conv2 = conv(inner, inner, 3, stride=second, padding=1)
        self.norm2 = norm(inner)
        self.conv3 = conv(inner, features, 1)
        self.norm3 = norm(features, zero_scale=True)
        projects = stride > 1 or channels != features
        self.shortcut = both(channels, features, 1, stride=stride) if projects else None

    def __call__(
        self, images: Float[Array, "n h w ci"], *, train: bool
    ) -> Float[Array, "n oh ow co"]:
        """Add the residual to the shortcut, then apply ReLU."""
        reduced = images if self.shortcut is None else apart(images)
        residual = self.norm1(self.conv1(reduced), train=train, relu=True)
        residual = self.norm2(self.conv2(residual), train=train, relu=True)
        kept = images if self.shortcut is None else self.shortcut(images, train=train)
        return conv_norm(self.conv3, self.norm3, residual, kept, train=train, relu=True)


def _layers(
    options: Options, keras: bool, rngs: nnx.Rngs
) -> tuple[partial[Conv], partial[BatchNorm], partial[ConvNorm]]:
    """Convolution, normalisation and both in one, as the whole network has them.

    A block's shortcut of another size or number of channels is a projection (option B).
    """
    epsilon = KERAS_EPSILON if keras else 1e-5
    conv = partial(Conv, use_bias=keras, dtype=options.dtype, rngs=rngs)
    norm = partial(BatchNorm, epsilon=epsilon, axis_name=options.axis_name, dtype=options.dtype)
    both = partial(
        ConvNorm,
        use_bias=keras,
        epsilon=epsilon,
        axis_name=options.axis_name,
        dtype=options.dtype,
        rngs=rngs,
    )
    return conv, norm, both


class ResNet(Network):
    """Stem, four stages of blocks and a head.

    The last normalisation of each block starts at zero, so every block starts as the identity
    (Goyal et al., "Accurate, Large Minibatch SGD", 2017, section 5.1). The stem `imagenet` is 7x7
    of stride 2 with a max pool after it; `small`, for images of some 32 pixels, 3x3 of stride 1.
    """

    own_options = ("stem",)

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, int, int, int],
        options: Options,
        *,
        width_factor: int = 1,
        keras: bool = False,
        rngs: nnx.Rngs,
    ):
        stem = "imagenet" if options.stem is None else options.stem
        if stem not in ("imagenet", "small"):
            raise InputError(f"stem is '{stem}'; allowed: imagenet, small")
        self.pools_stem = stem == "imagenet"
        _, _, both = _layers(options, keras, rngs)
        if self.pools_stem:
            self.stem = both(3, 64, 7, stride=2, padding=3)
            size = _halve(_halve(options.image_size))
        else:
            self.stem = both(3, 64, 3, padding=1)
            size = options.image_size
        channels = 64
        stages = []
        for stage, depth in enumerate(depths):
            blocks = []
            for place in range(depth):
                stride = 2 if stage > 0 and place == 0 else 1
                width = 64 * 2**stage
                made = block(
                    channels,
                    width,
                    options,
                    stride=stride,
                    width_factor=width_factor,
                    keras=keras,
                    rngs=rngs,
                )
                blocks.append(made)
                channels = width * block.expansion
                size = _halve(size) if stride == 2 else size
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)
        self.head = Head(channels, size, options, rngs=rngs)

    def features(
        self, images: Float[Array, "n h w 3"], *, train: bool, key: PRNGKeyArray | None = None
    ) -> Float[Array, "n oh ow k"]:
        """The last feature maps, 1/32 of the image's side (1/8 with the small stem)."""
        del key
        if self.pools_stem and train:
            maps = conv_norm_pool(self.stem, images, window=3, stride=2, padding=1)
        else:
            maps = self.tapped("stem", self.stem(images, train=train, relu=True))
            if self.pools_stem:
                maps = pool.max_pool(maps, window=3, stride=2, padding=1)
        return self.through_stages(maps, train=train)


def _halve(size: int) -> int:
    return -(-size // 2)


MODELS = {
    "resnet18": partial(ResNet, BasicBlock, (2, 2, 2, 2)),
    "resnet34": partial(ResNet, BasicBlock, (3, 4, 6, 3)),
    "resnet50": partial(ResNet, Bottleneck, (3, 4, 6, 3)),
    "resnet101": partial(ResNet, Bottleneck, (3, 4, 23, 3)),
    "resnet152": partial(ResNet, Bottleneck, (3, 8, 36, 3)),
    "wide_resnet50_2": partial(ResNet, Bottleneck, (3, 4, 6, 3), width_factor=2),
    "wide_resnet101_2": partial(ResNet, Bottleneck, (3, 4, 23, 3), width_factor=2),
    "keras_resnet50": partial(ResNet, Bottleneck, (3, 4, 6, 3), keras=True),
}
