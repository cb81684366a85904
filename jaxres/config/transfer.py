"""The section `transfer`: which weights stay as they are, and how fast the others move."""

import dataclasses

from jaxres.config.checks import named_number, require


@dataclasses.dataclass(frozen=True)
class TransferConfig:
    """Which weights stay as they are, until when, and how fast the others move.

    Patterns are shell patterns over the names of parameters, as `stages.0.*` or `*norm*`.
    """

    freeze_layers: int = 0
    """Freeze the first N layers: convolutions and dense layers, with the norms after them."""
    freeze: tuple[str, ...] = ()
    """Freeze the parameters that match one of these patterns."""
    unfreeze: tuple[str, ...] = ()
    """Gradual unfreezing: each `EPOCH:PATTERN` unfreezes what matches after EPOCH epochs."""
    rates: tuple[str, ...] = ()
    """Each `PATTERN:FACTOR` multiplies the learning rate; the first pattern that matches counts."""

    def __post_init__(self) -> None:
        """Check ranges and spellings."""
        require(
            self.freeze_layers >= 0,
            f"transfer.freeze_layers is {self.freeze_layers}; allowed: 0 or more",
        )
        self.unfreezing()
        self.rate_factors()

    def unfreezing(self) -> tuple[tuple[int, str], ...]:
        """`unfreeze` as (epoch, pattern)."""
        pairs = []
        for entry in self.unfreeze:
            epoch, colon, pattern = entry.partition(":")
            require(
                bool(epoch.isdecimal() and colon and pattern and int(epoch) >= 1),
                f"transfer.unfreeze has '{entry}'; allowed: EPOCH:PATTERN, as 1:stages.3.*",
            )
            pairs.append((int(epoch), pattern))
        require(
            not pairs or bool(self.freeze or self.freeze_layers),
            "transfer.unfreeze is given but nothing is frozen: give transfer.freeze too",
        )
        return tuple(pairs)

    def rate_factors(self) -> tuple[tuple[str, float], ...]:
        """`rates` as (pattern, factor)."""
        form = "PATTERN:FACTOR above 0, as stages.*:0.1"
        return tuple(named_number("transfer.rates", entry, allowed=form) for entry in self.rates)
