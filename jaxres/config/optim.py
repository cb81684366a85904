"""The section `optim`: optimiser, learning-rate schedule, label smoothing."""

import dataclasses
from typing import Literal

from jaxres.config.checks import require, require_finite


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Optimiser, learning-rate schedule, label smoothing."""

    name: str = "adamw"
    """`adadelta`, `adam`, `adamw`, `sgd`, `nesterov`, or for large batches `lamb` or `lars`."""
    learning_rate: float = 1e-3
    """The (peak) learning rate."""
    schedule: Literal["constant", "cosine", "one_cycle"] = "constant"
    """How the learning rate changes from the first step to the last."""
    warmup_fraction: float = 0.0
    """Fraction of all steps over which the rate rises to its peak."""
    momentum: float = 0.9
    """Momentum of sgd, nesterov and lars."""
    beta1: float = 0.9
    """Decay of the first moment (adam, adamw, lamb)."""
    beta2: float = 0.999
    """Decay of the second moment (adam, adamw, lamb)."""
    rho: float = 0.95
    """Decay of the squared averages (adadelta)."""
    epsilon: float = 1e-7
    """Added to denominators (adadelta, adam, adamw, lamb)."""
    weight_decay: float = 0.0
    """Decoupled for adamw and lamb, added to the gradient for the others."""
    decayed: Literal["kernels", "all"] = "kernels"
    """What weight decay acts on: `kernels`, or `all` parameters, norms' scales and biases too."""
    l1: float = 0.0
    """Penalty on the absolute values of kernels, added to the gradient."""
    label_smoothing: float = 0.0
    """Fraction of the target that is spread over all classes."""
    clip_norm: float | None = None
    """Clip the gradient to this global norm."""
    accumulate_steps: int = 1
    """Microbatches that each device's batch is split into, to save memory."""
    ema_decay: float = 0.0
    """Evaluate an exponential moving average of the weights; 0: the weights themselves."""

    def __post_init__(self) -> None:
        """Check ranges and combinations."""
        require_finite("optim", self)
        require(
            self.learning_rate > 0,
            f"optim.learning_rate is {self.learning_rate}; allowed: above 0",
        )
        for key in ("momentum", "beta1", "beta2", "rho", "label_smoothing", "ema_decay"):
            value = getattr(self, key)
            require(0.0 <= value < 1.0, f"optim.{key} is {value}; allowed: 0 to below 1")
        require(
            0.0 <= self.warmup_fraction < 1.0,
            f"optim.warmup_fraction is {self.warmup_fraction}; allowed: 0 to below 1",
        )
        require(
            self.schedule != "one_cycle" or self.warmup_fraction > 0,
            "optim.schedule one_cycle needs optim.warmup_fraction above 0 (usual: 0.3)",
        )
        require(self.epsilon > 0, f"optim.epsilon is {self.epsilon}; allowed: above 0")
        for key in ("weight_decay", "l1"):
            value = getattr(self, key)
            require(value >= 0, f"optim.{key} is {value}; allowed: 0 or more")
        require(
            self.clip_norm is None or self.clip_norm > 0,
            f"optim.clip_norm is {self.clip_norm}; allowed: above 0",
        )
        require(
            self.accumulate_steps >= 1,
            f"optim.accumulate_steps is {self.accumulate_steps}; allowed: 1 or more",
        )
