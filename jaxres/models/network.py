"""What every network is: a body that gives feature maps, and a head that makes logits of them."""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from jaxres.models.blocks import BatchNorm, Linear
from jaxres.models.options import Options
from jaxres.ops import pool
from jaxres.ops.dropout import dropout, fold
from jaxres.runtime.errors import InputError

Tap = Callable[[str, Array], Array]
HEADS = {"average": pool.global_average_pool, "max": pool.global_max_pool}


class Head(nnx.Module):
    """From the last feature maps to logits: pooled or flattened, dense layers, a last layer.

    What `options` leaves open is as the keyword arguments say. Dropout follows every dense layer;
    without dense layers it precedes the last one.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        options: Options,
        *,
        kind: str = "average",
        dense: tuple[int, ...] = (),
        dense_norm: bool = False,
        dropout: float = 0.0,
        rngs: nnx.Rngs,
    ):
        self.kind = kind if options.head is None else options.head
        if self.kind not in (*HEADS, "flatten"):
            raise InputError(f"head is '{self.kind}'; allowed: {', '.join(HEADS)}, flatten")
        self.dropout = dropout if options.dropout is None else options.dropout
        if not 0.0 <= self.dropout < 1.0:
            raise InputError(f"dropout is {self.dropout}; allowed: 0 up to, not including, 1")
        widths = dense if options.dense is None else options.dense
        normalises = dense_norm if options.dense_norm is None else options.dense_norm
        inputs = channels * size**2 if self.kind == "flatten" else channels
        self.dense = nnx.List([])
        self.norms = nnx.List([])
        for outputs in widths:
            layer = Linear(inputs, outputs, relu_follows=True, dtype=options.dtype, rngs=rngs)
            self.dense.append(layer)
            if normalises:
                norm = BatchNorm(outputs, axis_name=options.axis_name, dtype=options.dtype)
                self.norms.append(norm)
            inputs = outputs
        self.linear = Linear(inputs, options.classes, dtype=options.dtype, rngs=rngs)

    def __call__(
        self, features: Float[Array, "n h w c"], *, train: bool, key: PRNGKeyArray | None
    ) -> Float[Array, "n classes"]:
        """Logits in float32. `key` draws the dropout of a training step."""
        n = features.shape[0]
        rows = features.reshape(n, -1) if self.kind == "flatten" else HEADS[self.kind](features)
        for place, layer in enumerate(self.dense):
            rows = layer(rows)
            if self.norms:
                rows = self.norms[place](rows[:, None, None], train=train)[:, 0, 0]
            rows = dropout(nnx.relu(rows), self.dropout, train=train, key=fold(key, place))
        if not self.dense:
            rows = dropout(rows, self.dropout, train=train, key=key)
        return self.linear(rows)


class Published(NamedTuple):
    """What a family's published weights were trained on."""

    dataset: str | None  # of ours
    image_size: int  # pixels
    classes: int


class Network(nnx.Module):
    """A body and its `head`; a family gives `features` and says which options are its own."""

    smallest_image: ClassVar[int] = 32  # pixels
    published: ClassVar[Published] = Published(None, 224, 1000)  # ImageNet
    own_options: ClassVar[tuple[str, ...]] = ()  # of those that only some networks take
    head: Head
    stages: nnx.List[Any]  # of lists of blocks, in networks that have them
    tap: Tap | None = None  # for one call: set by `Net.apply`

    def tapped(self, name: str, maps: Array) -> Array:
        """The maps of the layer `name`, as whoever looks at the network returns them.

        A body passes through here what each of its layers gives, under the name that the layer has
        in `params`; of a stage of blocks, what the last block gives.
        """
        return maps if self.tap is None else self.tap(name, maps)

    def through_stages(
        self, maps: Float[Array, "n h w ci"], *, train: bool
    ) -> Float[Array, "n oh ow co"]:
        """What the blocks of `stages` make of the maps, one after another."""
        for place, stage in enumerate(self.stages):
            for block in stage:
                maps = block(maps, train=train)
            maps = self.tapped(f"stages.{place}", maps)
        return maps

    def features(
        self, images: Float[Array, "n h w 3"], *, train: bool, key: PRNGKeyArray | None
    ) -> Float[Array, "n oh ow k"]:
        """The last feature maps."""
        raise NotImplementedError

    def __call__(
        self, images: Float[Array, "n h w 3"], *, train: bool, key: PRNGKeyArray | None = None
    ) -> Float[Array, "n classes"]:
        """Logits in float32. `key` is needed in training with dropout."""
        maps = self.tapped("features", self.features(images, train=train, key=fold(key, 0)))
        return self.head(maps, train=train, key=fold(key, 1))
