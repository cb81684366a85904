"""What the sections of the settings check with; a miss is a ValueError with one sentence."""

import dataclasses
import math
import os
import re
from typing import Any

from jaxres.errors import InputError

MAX_NAME_BYTES, MAX_PATH_BYTES = 255, 4000
ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+:)/+")  # not Windows's C:/
MAX_SEED = 2**32 - 1  # what JAX's random keys tell apart


def require(holds: bool, message: str) -> None:
    """Raise the message unless it holds."""
    if not holds:
        raise ValueError(message)


def require_path(key: str, path: str, *, folder: bool = True) -> None:
    """Refuse what no file system takes as a path, and addresses, of which it would make a folder.

    `Path` has made s3:/bucket of s3://bucket. The names of a `folder` must be UTF-8, as those that
    write and read checkpoints in it want them.

    Raises:
        InputError: it is one.
    """
    if (address := ADDRESS.match(path)) is not None:
        raise InputError(
            f"{key} is '{address[1]}//{path[address.end() :]}', an address; allowed: a path of "
            "this machine's file systems (a bucket can be mounted as one)"
        )
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:
        encoded = b"\0"
    names = encoded.split(b"/")
    too_long = len(encoded) > MAX_PATH_BYTES or max(map(len, names)) > MAX_NAME_BYTES
    if b"\0" in encoded or too_long:
        raise InputError(
            f"{key} is {path!r:.80}; allowed: a path of at most {MAX_PATH_BYTES} bytes, "
            f"{MAX_NAME_BYTES} of them a name, without zero bytes"
        )
    text = encoded.decode(errors="backslashreplace")
    if folder and text != path:
        raise InputError(f"{key} is '{text}'; allowed: a path whose names are UTF-8")


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
