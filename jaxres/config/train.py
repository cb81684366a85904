"""The sections `train`, `checkpoint` and `log`: length, devices, limits, what is kept and sent."""

import dataclasses
import re
from typing import Literal

from jaxres.config.checks import require, require_seed
from jaxres.runtime.paths import require_path

PROJECT = re.compile(r"([\w.-]{1,128}/)?[\w.-]{1,128}")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Length of the run, devices, logging and limits."""

    epochs: int = 1
    """Passes over the training examples (an incomplete last batch is left out)."""
    loss: str = "cross_entropy"
    """The loss by name: cross_entropy, sigmoid_cross_entropy or a registered one."""
    seed: int = 0
    """Seed of the initial weights, the plans of training images and dropout."""
    parallel: Literal["jit", "pmap"] = "jit"
    """How the step is compiled for the devices: jit of shard_map, or pmap."""
    reduction: Literal["all_reduce", "ordered"] = "all_reduce"
    """How the devices' gradients are averaged: `all_reduce`, in whatever order is fastest; or
    `ordered`, gathered and added in the devices' order, so that the bits do not depend on how the
    devices are spread over processes, at as many times the traffic as there are devices."""
    deterministic: bool = False
    """On a GPU: only algorithms that give the same bits each time, chosen by rules and not by a
    race, so that a resumed run ends with the bits of an uninterrupted one. CPU and TPU are always
    deterministic."""
    devices: int | None = None
    """Use only the first N devices; default: all."""
    steps_per_call: int = 1
    """Steps run in one dispatch (`lax.scan`)."""
    log_every_steps: int = 50
    """Steps per log window; metrics are fetched from the devices once per window."""
    evaluate_every_epochs: int = 1
    """Epochs between evaluations on the validation split."""
    limit_train_examples: int | None = None
    """Use only the first N training examples."""
    limit_eval_examples: int | None = None
    """Use only the first N validation and test examples."""
    on_nan: Literal["stop", "skip", "rollback"] = "stop"
    """When a loss or gradient is not finite: `stop`; `skip` such steps, leaving the weights as
    they are; or `rollback` to the last checkpoint and pass over the steps since."""
    compile_cache: str = "default"
    """Where compiled programs are kept for the next run: `default`, a folder, or `off`."""
    join_timeout_s: int = 300
    """Seconds within which all processes of a run must have been started."""
    peer_timeout_s: int = 60
    """Seconds of silence after which a process of the run is considered lost."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(
            self.compile_cache.isprintable(),
            f"train.compile_cache is {self.compile_cache!r}; allowed: default, off or a folder",
        )
        require_path("train.compile_cache", self.compile_cache)
        require(
            not self.deterministic or self.parallel == "jit",
            "train.deterministic is true, but train.parallel is pmap, which takes no options of "
            "the compiler; allowed with it: jit",
        )
        require_seed("train.seed", self.seed)
        for key in (
            "epochs",
            "devices",
            "steps_per_call",
            "log_every_steps",
            "evaluate_every_epochs",
            "limit_train_examples",
            "limit_eval_examples",
            "join_timeout_s",
            "peer_timeout_s",
        ):
            value = getattr(self, key)
            require(value is None or value >= 1, f"train.{key} is {value}; allowed: 1 or more")


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When checkpoints are written and which are kept."""

    every_steps: int | None = None
    """Steps between checkpoints; default: only at each evaluation."""
    keep_last: int = 2
    """Newest checkpoints kept."""
    keep_best: int = 1
    """Checkpoints kept for their validation accuracy."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for key in ("every_steps", "keep_last", "keep_best"):
            value = getattr(self, key)
            require(value is None or value >= 1, f"checkpoint.{key} is {value}; allowed: 1 or more")


@dataclasses.dataclass(frozen=True)
class LogConfig:
    """Where metrics go beside `metrics.jsonl` and TensorBoard's events."""

    wandb: str = ""
    """A project of Weights & Biases, PROJECT or ENTITY/PROJECT; needs the extra `wandb`."""

    def __post_init__(self) -> None:
        """Check that it can be a project."""
        require(
            not self.wandb or PROJECT.fullmatch(self.wandb) is not None,
            f"log.wandb is {self.wandb!r}; allowed: PROJECT or ENTITY/PROJECT, of letters, digits, "
            "'.', '_' and '-'",
        )
