"""The section `model`: the network."""

import dataclasses
from typing import Literal

from jaxres.config.checks import require, require_finite
from jaxres.runtime.paths import require_path


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network."""

    name: str = "resnet18"
    """Name in the registry (see `jaxres models`)."""
    init_from: str = ""
    """Run directory or imported weights to start from; their head is used only if it fits."""
    new_head: bool = False
    """Start with a new head even if that of init_from fits."""
    stem: Literal["imagenet", "small"] | None = None
    """First layers of a ResNet; `imagenet` (default): 7x7, stride 2, max pooling; `small`: 3x3."""
    head: Literal["average", "max", "flatten"] | None = None
    """How the last feature maps become a vector; default: the network's own."""
    dense: tuple[int, ...] | None = None
    """Widths of dense layers with ReLU before the last one; default: the network's own."""
    dense_norm: bool | None = None
    """Batch norm in the dense layers; default: the network's own."""
    dropout: float | None = None
    """Dropout rate after each hidden dense layer, or before the last layer if there is none;
    default: the network's own."""
    spatial_dropout: float | None = None
    """Rate of the dropout (of feature maps, or of values) inside the body of networks that have it;
    default: the network's own."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the activations; parameters, statistics, logits and loss are float32."""
    sync_batch_norm: bool = False
    """Normalise with the statistics of the whole batch, not of each device's part."""
    fold_norm: Literal["auto", "always", "never"] = "auto"
    """Train with batch norm folded into the 1x1 convolutions before it and the max pooling after
    it, which saves memory traffic: `auto`, on accelerators; `always`, on CPU too, where it is
    slower; or `never`."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require_finite("model", self)
        require_path("model.init_from", self.init_from)
        for key in ("dropout", "spatial_dropout"):
            rate = getattr(self, key)
            require(
                rate is None or 0.0 <= rate < 1.0, f"model.{key} is {rate}; allowed: 0 to below 1"
            )
        for outputs in self.dense or ():
            require(outputs >= 1, f"model.dense has {outputs}; allowed: 1 or more")
        require(
            not self.new_head or bool(self.init_from),
            "model.new_head is true but model.init_from is not given: every head is new then",
        )
