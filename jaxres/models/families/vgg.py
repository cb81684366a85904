"""VGG (Simonyan and Zisserman, "Very Deep Convolutional Networks", 2014), as torchvision has it."""

from functools import partial

from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from jaxres.models.options import Options
from jaxres.models.sequential import ConvLayer, Layer, MaxPool, Sequential
from jaxres.ops import pool

GRID = 7  # side of the maps that the dense layers read

# Convolutions per stage (table 1: configurations A, B, D and E).
DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)


class VGG(Sequential):
    """3x3 convolutions with biases in five stages, then two dense layers of 4096 and the last one.

    The maps reach the dense layers averaged onto 7x7, as in torchvision; at 224 pixels that changes
    nothing. With `head: flatten` they are taken as they are, as Keras does.
    """

    smallest_image = 32

    def __init__(self, depth: int, options: Options, *, norm: bool = False, rngs: nnx.Rngs):
        self.averages_onto_grid = options.head is None
        layers: list[Layer] = []
        for width, count in zip(WIDTHS, DEPTHS[depth], strict=True):
            layers += [*[ConvLayer(width, norm=norm)] * count, MaxPool()]
        super().__init__(layers, options, dense=(4096, 4096), dropout=0.5, rngs=rngs)

    def head_size(self, size: int) -> int:
        """The grid's side, or the maps' own."""
        return GRID if self.averages_onto_grid else size

    def features(
        self, images: Float[Array, "n h w 3"], *, train: bool, key: PRNGKeyArray | None = None
    ) -> Float[Array, "n oh ow 512"]:
        """The last feature maps, on the grid or 1/32 of the image's side."""
        maps = super().features(images, train=train, key=key)
        return pool.adaptive_average_pool(maps, GRID) if self.averages_onto_grid else maps


MODELS = {
    f"vgg{depth}{suffix}": partial(VGG, depth, norm=bool(suffix))
    for suffix in ("", "_bn")
    for depth in DEPTHS
}
