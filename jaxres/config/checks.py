"""What the sections of the settings check with; a miss is a ValueError with one sentence."""

import dataclasses
import math
from typing import Any

MAX_SEED = 2**32 - 1  # what JAX's random keys tell apart


def require(holds: bool, message: str) -> None:
    """Raise the message unless it holds."""
    if not holds:
        raise ValueError(message)


def require_finite(section: str, config: Any) -> None:
    """Refuse numbers that are not finite in any field."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            finite = not isinstance(number, float) or math.isfinite(number)
            require(finite, f"{section}.{field.name} has {number}; allowed: finite numbers")


def named_number(key: str, entry: str, *, allowed: str) -> tuple[str, float]:
    """An entry `NAME:NUMBER` of a setting, its number above 0 and finite."""
    name, _, text = entry.rpartition(":")
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    holds = bool(name) and math.isfinite(number) and number > 0
    require(holds, f"{key} has '{entry}'; allowed: {allowed}")
    return name, number


def require_seed(key: str, seed: int) -> None:
    """Refuse a seed that JAX's random keys would not tell from another."""
    require(0 <= seed <= MAX_SEED, f"{key} is {seed}; allowed: 0 to {MAX_SEED}")
