"""Networks that are one row of layers, described by a table."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from jaxres.models.blocks import Conv, ConvNorm
from jaxres.models.network import Head, Network
from jaxres.models.options import Options
from jaxres.ops import pool
from jaxres.ops.dropout import dropout, fold


class ConvLayer(NamedTuple):
    """A convolution with ReLU, padded so that stride 1 keeps the size; `norm` before ReLU."""

    features: int
    window: int = 3
    stride: int = 1
    norm: bool = False
    bias: bool = True


class MaxPool(NamedTuple):
    """2x2 of stride 2; a last odd row or column is left out."""


class SpatialDropout(NamedTuple):
    """Whole feature maps dropped; `model.spatial_dropout` overrides the rate."""

    rate: float


class Dropout(NamedTuple):
    """Values dropped; `model.spatial_dropout`, the dropout of the body, overrides this rate too."""

    rate: float


Layer = ConvLayer | MaxPool | SpatialDropout | Dropout


class Sequential(Network):
    """Layers one after the other, then a head; see `Head` for its keyword arguments."""

    smallest_image = 28

    def __init__(
        self,
        layers: Sequence[Layer],
        options: Options,
        *,
        head: str = "flatten",
        dense: tuple[int, ...] = (),
        dense_norm: bool = False,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        self.layers = tuple(layers)
        self.spatial_dropout = options.spatial_dropout
        self.convs = nnx.List([])
        channels, size = 3, options.image_size
        for layer in self.layers:
            if isinstance(layer, ConvLayer):
                self.convs.append(_conv(channels, layer, options, rngs))
                channels, size = layer.features, -(-size // layer.stride)
            elif isinstance(layer, MaxPool):
                size //= 2
        self.head = Head(
            channels,
            self.head_size(size),
            options,
            kind=head,
            dense=dense,
            dense_norm=dense_norm,
            dropout=dropout,
            rngs=rngs,
        )

    def head_size(self, size: int) -> int:
        """Side of the maps that reach the head, of those that leave the layers."""
        return size

    def features(
        self, images: Float[Array, "n h w 3"], *, train: bool, key: PRNGKeyArray | None = None
    ) -> Float[Array, "n oh ow k"]:
        """The last feature maps."""
        maps, convs = images, enumerate(self.convs)
        for place, layer in enumerate(self.layers):
            drop = partial(dropout, maps, train=train, key=fold(key, place))
            match layer:
                case ConvLayer(norm=True):
                    number, conv = next(convs)
                    maps = self.tapped(f"convs.{number}", conv(maps, train=train, relu=True))
                case ConvLayer():
                    number, conv = next(convs)
                    maps = nnx.relu(self.tapped(f"convs.{number}", conv(maps)))
                case MaxPool():
                    maps = pool.max_pool(maps, window=2, stride=2)
                case SpatialDropout(rate) | Dropout(rate):
                    given = self.spatial_dropout
                    whole_maps = isinstance(layer, SpatialDropout)
                    maps = drop(rate if given is None else given, whole_maps=whole_maps)
        return maps


def _conv(channels: int, layer: ConvLayer, options: Options, rngs: nnx.Rngs) -> Conv | ConvNorm:
    make = partial(ConvNorm, axis_name=options.axis_name) if layer.norm else Conv
    return make(
        channels,
        layer.features,
        layer.window,
        stride=layer.stride,
        padding=layer.window // 2,
        use_bias=layer.bias,
        dtype=options.dtype,
        rngs=rngs,
    )
