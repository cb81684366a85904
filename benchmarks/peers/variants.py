"""Our own training step with one thing changed, to be compared with it: `--against`, `--peer`."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import jax
from jaxtyping import Array

from jaxres.config import Config
from jaxres.models import blocks
from jaxres.ops import norm
from jaxres.ops.conv import prefer_lowering
from jaxres.runtime import errors


class Variant(NamedTuple):
    """What is changed: settings by their dotted keys, what is traced, options of the compiler."""

    told: str
    settings: Mapping[str, Any] = {}
    tracing: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext
    compiler_options: Mapping[str, Any] = {}

    def apply(self, config: Config) -> Config:
        """The settings of a run with those of the variant."""
        for key, value in self.settings.items():
            section, _, name = key.partition(".")
            changed = dataclasses.replace(getattr(config, section), **{name: value})
            config = dataclasses.replace(config, **{section: changed})
        return config


def batch_norm(
    images: Array,
    scale: Array,
    bias: Array,
    shortcut: Array | None = None,
    *,
    epsilon: float,
    relu: bool,
    max_value: float | None = None,
    axis_name: str | None = None,
) -> tuple[Array, Array, Array]:
    """What `norm.batch_norm` gives, without its gradient."""
    mean, var = norm.moments(images, axis_name)
    given = {"epsilon": epsilon, "relu": relu, "max_value": max_value}
    outputs = norm.normalise(images, mean, var, scale, bias, shortcut, **given)
    return outputs, *jax.lax.stop_gradient((mean, var))


VARIANTS = {
    "unfolded": Variant("batch norm by itself", {"model.fold_norm": "never"}),
    "folded": Variant("batch norm folded wherever it can be", {"model.fold_norm": "always"}),
    "derived_norm": Variant(
        "batch norm by itself, its gradient derived by JAX",
        {"model.fold_norm": "never"},
        partial(mock.patch.object, blocks, "batch_norm", batch_norm),
    ),
    "space_to_depth": Variant(
        "the first convolution over blocks of 2x2 pixels",
        tracing=partial(prefer_lowering, "space_to_depth"),
    ),
    "four_channels": Variant(
        "the first convolution over four channels",
        tracing=partial(prefer_lowering, "four_channels"),
    ),
    "no_excess_precision": Variant(
        "every bfloat16 rounded where the program says so",
        compiler_options={"xla_allow_excess_precision": False},
    ),
    "deterministic": Variant(
        "the same bits in every run, on a GPU too", {"train.deterministic": True}
    ),
}


def find(name: str) -> Variant:
    """The variant of this name.

    Raises:
        InputError: there is none.
    """
    return errors.find("variant", name, VARIANTS)
