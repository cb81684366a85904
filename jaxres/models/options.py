"""What is asked of a network when it is built."""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Sizes and choices; None leaves a choice to the network. See `config.ModelConfig`."""

    classes: int
    image_size: int  # side of the square images, pixels
    stem: str | None = None
    head: str | None = None
    dense: tuple[int, ...] | None = None
    dense_norm: bool | None = None
    dropout: float | None = None
    spatial_dropout: float | None = None
    dtype: jax.typing.DTypeLike = jnp.float32  # of arithmetic and activations
    sync_batch_norm: bool = False
    fold_norm: str = "auto"

    @property
    def axis_name(self) -> str | None:
        """The axis of devices that batch norm averages its moments over."""
        return "data" if self.sync_batch_norm else None
