"""Residual networks (He et al., "Deep Residual Learning for Image Recognition", 2015).

Version 1.5: a bottleneck's stride is in its 3x3 convolution, as in torchvision and every published
speed figure. Wide variants double the bottleneck (Zagoruyko and Komodakis, 2016).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from jaxres.errors import InputError
from jaxres.models.blocks import BatchNorm, Conv, ConvNorm, Head
from jaxres.ops import pool

SMALLEST_IMAGE = 32


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut (section 3.3)."""

    expansion = 1

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        stride: int,
        width_factor: int,
        axis_name: str | None,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        inner = width * width_factor
        self.conv1 = Conv(channels, inner, 3, stride=stride, padding=1, dtype=dtype, rngs=rngs)
        self.norm1 = BatchNorm(inner, axis_name=axis_name, dtype=dtype)
        self.conv2 = Conv(inner, width, 3, padding=1, dtype=dtype, rngs=rngs)
        self.norm2 = BatchNorm(width, zero_scale=True, axis_name=axis_name, dtype=dtype)
        self.shortcut = _shortcut(channels, width, stride, axis_name, dtype, rngs)

    def __call__(
        self, images: Float[Array, "n h w ci"], *, train: bool
    ) -> Float[Array, "n oh ow co"]:
        """Add the residual to the shortcut, then rectify."""
        residual = self.norm1(self.conv1(images), train=train, rectify=True)
        kept = images if self.shortcut is None else self.shortcut(images, train=train)
        return self.norm2(self.conv2(residual), kept, train=train, rectify=True)


class Bottleneck(nnx.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolutions and a shortcut (section 4.1, figure 5)."""

    expansion = 4

    def __init__(
        self,
        channels: int,
        width: int,
        *,
        stride: int,
        width_factor: int,
        axis_name: str | None,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        inner, features = width * width_factor, width * self.expansion
        self.conv1 = Conv(channels, inner, 1, dtype=dtype, rngs=rngs)
        self.norm1 = BatchNorm(inner, axis_name=axis_name, dtype=dtype)
        self.conv2 = Conv(inner, inner, 3, stride=stride, padding=1, dtype=dtype, rngs=rngs)
        self.norm2 = BatchNorm(inner, axis_name=axis_name, dtype=dtype)
        self.conv3 = Conv(inner, features, 1, dtype=dtype, rngs=rngs)
        self.norm3 = BatchNorm(features, zero_scale=True, axis_name=axis_name, dtype=dtype)
        self.shortcut = _shortcut(channels, features, stride, axis_name, dtype, rngs)

    def __call__(
        self, images: Float[Array, "n h w ci"], *, train: bool
    ) -> Float[Array, "n oh ow co"]:
        """Add the residual to the shortcut, then rectify."""
        residual = self.norm1(self.conv1(images), train=train, rectify=True)
        residual = self.norm2(self.conv2(residual), train=train, rectify=True)
        kept = images if self.shortcut is None else self.shortcut(images, train=train)
        return self.norm3(self.conv3(residual), kept, train=train, rectify=True)


def _shortcut(
    channels: int,
    features: int,
    stride: int,
    axis_name: str | None,
    dtype: jax.typing.DTypeLike,
    rngs: nnx.Rngs,
) -> ConvNorm | None:
    """The projection of a block that changes size or channels (option B), else None."""
    if stride == 1 and channels == features:
        return None
    return ConvNorm(
        channels, features, 1, stride=stride, axis_name=axis_name, dtype=dtype, rngs=rngs
    )


class ResNet(nnx.Module):
    """Stem, four stages of blocks and a head.

    The last normalisation of each block starts at zero, so every block starts as the identity
    (Goyal et al., "Accurate, Large Minibatch SGD", 2017, section 5.1).
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        depths: tuple[int, int, int, int],
        *,
        width_factor: int,
        classes: int,
        image_size: int,
        stem: str,
        head: str,
        dropout: float,
        dtype: jax.typing.DTypeLike,
        sync_batch_norm: bool,
        rngs: nnx.Rngs,
    ):
        if image_size < SMALLEST_IMAGE:
            raise InputError(
                f"image_size is {image_size}; allowed: {SMALLEST_IMAGE} pixels or more for a ResNet"
            )
        axis_name = "data" if sync_batch_norm else None
        self.stem = _stem(stem, axis_name, dtype, rngs)
        self.pools_stem = stem == "imagenet"
        size = _halve(_halve(image_size)) if self.pools_stem else image_size
        channels = 64
        stages = []
        for stage, depth in enumerate(depths):
            blocks = []
            for place in range(depth):
                stride = 2 if stage > 0 and place == 0 else 1
                width = 64 * 2**stage
                blocks.append(
                    block(
                        channels,
                        width,
                        stride=stride,
                        width_factor=width_factor,
                        axis_name=axis_name,
                        dtype=dtype,
                        rngs=rngs,
                    )
                )
                channels = width * block.expansion
                size = _halve(size) if stride == 2 else size
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)
        self.head = Head(
            channels, size, classes, kind=head, dropout=dropout, dtype=dtype, rngs=rngs
        )

    def features(
        self, images: Float[Array, "n h w 3"], *, train: bool
    ) -> Float[Array, "n oh ow k"]:
        """The last feature maps, 1/32 of the picture's side (1/8 with the small stem)."""
        maps = self.stem(images, train=train, rectify=True)
        if self.pools_stem:
            maps = pool.max_pool(maps, window=3, stride=2, padding=1)
        for stage in self.stages:
            for block in stage:
                maps = block(maps, train=train)
        return maps

    def __call__(
        self, images: Float[Array, "n h w 3"], *, train: bool, key: PRNGKeyArray | None = None
    ) -> Float[Array, "n classes"]:
        """Logits in float32. `key` is needed in training with dropout."""
        return self.head(self.features(images, train=train), train=train, key=key)


def _stem(
    kind: str, axis_name: str | None, dtype: jax.typing.DTypeLike, rngs: nnx.Rngs
) -> ConvNorm:
    """7x7 of stride 2 (a max pool follows), or 3x3 of stride 1 for pictures of 32 pixels or so."""
    if kind == "imagenet":
        window, stride, padding = 7, 2, 3
    elif kind == "small":
        window, stride, padding = 3, 1, 1
    else:
        raise InputError(f"stem is '{kind}'; allowed: imagenet, small")
    return ConvNorm(
        3, 64, window, stride=stride, padding=padding, axis_name=axis_name, dtype=dtype, rngs=rngs
    )


def _halve(size: int) -> int:
    return -(-size // 2)


def _variant(
    name: str,
    block: type[BasicBlock] | type[Bottleneck],
    depths: tuple[int, int, int, int],
    width_factor: int = 1,
) -> Callable[..., ResNet]:
    def build(
        *,
        classes: int,
        image_size: int,
        stem: str = "imagenet",
        head: str = "average",
        dropout: float = 0.0,
        dtype: jax.typing.DTypeLike = jnp.float32,
        sync_batch_norm: bool = False,
        rngs: nnx.Rngs,
    ) -> ResNet:
        return ResNet(
            block,
            depths,
            width_factor=width_factor,
            classes=classes,
            image_size=image_size,
            stem=stem,
            head=head,
            dropout=dropout,
            dtype=dtype,
            sync_batch_norm=sync_batch_norm,
            rngs=rngs,
        )

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"{name}: {sum(depths)} blocks of {block.__name__} in stages of {depths}."
    return build


resnet18 = _variant("resnet18", BasicBlock, (2, 2, 2, 2))
resnet34 = _variant("resnet34", BasicBlock, (3, 4, 6, 3))
resnet50 = _variant("resnet50", Bottleneck, (3, 4, 6, 3))
resnet101 = _variant("resnet101", Bottleneck, (3, 4, 23, 3))
resnet152 = _variant("resnet152", Bottleneck, (3, 8, 36, 3))
wide_resnet50_2 = _variant("wide_resnet50_2", Bottleneck, (3, 4, 6, 3), width_factor=2)
wide_resnet101_2 = _variant("wide_resnet101_2", Bottleneck, (3, 4, 23, 3), width_factor=2)

MODELS = (resnet18, resnet34, resnet50, resnet101, resnet152, wide_resnet50_2, wide_resnet101_2)
