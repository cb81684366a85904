"""Plain convolutional networks for small pictures."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from jaxres.errors import InputError
from jaxres.models.blocks import ConvNorm, Head

SMALLEST_IMAGE = 28

# Features, window and stride of each convolution.
ALL_CNN_SMALL = ((32, 5, 2), (64, 3, 2), (64, 3, 1))


class AllCNN(nnx.Module):
    """Convolutions with batch norm, strides in the place of pooling, and a head.

    After Springenberg et al., "Striving for Simplicity: The All Convolutional Net" (2015).
    """

    def __init__(
        self,
        layers: tuple[tuple[int, int, int], ...],
        *,
        classes: int,
        image_size: int,
        head: str,
        dropout: float,
        dtype: jax.typing.DTypeLike,
        sync_batch_norm: bool,
        rngs: nnx.Rngs,
    ):
        if image_size < SMALLEST_IMAGE:
            raise InputError(
                f"image_size is {image_size}; allowed: {SMALLEST_IMAGE} pixels or more for this CNN"
            )
        axis_name = "data" if sync_batch_norm else None
        channels, size, convs = 3, image_size, []
        for features, window, stride in layers:
            convs.append(
                ConvNorm(
                    channels,
                    features,
                    window,
                    stride=stride,
                    padding=window // 2,
                    axis_name=axis_name,
                    dtype=dtype,
                    rngs=rngs,
                )
            )
            channels, size = features, -(-size // stride)
        self.convs = nnx.List(convs)
        self.head = Head(
            channels, size, classes, kind=head, dropout=dropout, dtype=dtype, rngs=rngs
        )

    def features(
        self, images: Float[Array, "n h w 3"], *, train: bool
    ) -> Float[Array, "n oh ow k"]:
        """The last feature maps."""
        maps = images
        for conv in self.convs:
            maps = conv(maps, train=train, rectify=True)
        return maps

    def __call__(
        self, images: Float[Array, "n h w 3"], *, train: bool, key: PRNGKeyArray | None = None
    ) -> Float[Array, "n classes"]:
        """Logits in float32. `key` is needed in training with dropout."""
        return self.head(self.features(images, train=train), train=train, key=key)


def all_cnn_small(
    *,
    classes: int,
    image_size: int,
    stem: str = "small",
    head: str = "flatten",
    dropout: float = 0.0,
    dtype: jax.typing.DTypeLike = jnp.float32,
    sync_batch_norm: bool = False,
    rngs: nnx.Rngs,
) -> AllCNN:
    """all_cnn_small: three convolutions, for MNIST in a minute on a CPU. It has no other `stem`."""
    del stem
    return AllCNN(
        ALL_CNN_SMALL,
        classes=classes,
        image_size=image_size,
        head=head,
        dropout=dropout,
        dtype=dtype,
        sync_batch_norm=sync_batch_norm,
        rngs=rngs,
    )


MODELS = (all_cnn_small,)
