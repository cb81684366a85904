"""Every setting of a run: frozen dataclasses that hold all defaults and check what is allowed.

`config/recipe.py` fills them from YAML files and command-line flags.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from jaxres.config.augment import AugmentConfig, Augmenting
from jaxres.config.checks import MAX_SEED, require
from jaxres.config.data import DataConfig
from jaxres.config.model import ModelConfig
from jaxres.config.optim import OptimConfig
from jaxres.config.plugins import PluginsConfig
from jaxres.config.train import CheckpointConfig, LogConfig, TrainConfig
from jaxres.config.transfer import TransferConfig

__all__ = [
    "MAX_SEED",
    "PER_PROCESS_KEYS",
    "AugmentConfig",
    "Augmenting",
    "CheckpointConfig",
    "Config",
    "DataConfig",
    "LogConfig",
    "ModelConfig",
    "OptimConfig",
    "PluginsConfig",
    "Split",
    "TrainConfig",
    "TransferConfig",
    "as_made",
    "differing_keys",
    "flatten",
    "listed",
    "to_dict",
    "unflatten",
    "with_normalisation",
]

Split = Literal["train", "validation", "test"]


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a run."""

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    augment: AugmentConfig = dataclasses.field(default_factory=AugmentConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    transfer: TransferConfig = dataclasses.field(default_factory=TransferConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    log: LogConfig = dataclasses.field(default_factory=LogConfig)
    plugins: PluginsConfig = dataclasses.field(default_factory=PluginsConfig)

    def __post_init__(self) -> None:
        """Check combinations of sections."""
        for epoch, pattern in self.transfer.unfreezing():
            require(
                epoch < self.train.epochs,
                f"transfer.unfreeze has '{epoch}:{pattern}', but train.epochs is "
                f"{self.train.epochs}; allowed: epochs 1 to {self.train.epochs - 1}",
            )
        require(
            self.train.reduction != "ordered" or not self.model.sync_batch_norm,
            "train.reduction is ordered, but model.sync_batch_norm is true, whose statistics are "
            "reduced in any order; allowed with it: all_reduce",
        )


# Keys that do not change what is computed: a resumed run may differ in them.
FREE_KEYS = frozenset(
    {
        "data.data_dir",
        "data.workers",
        "data.prefetch",
        "train.parallel",
        "train.reduction",
        "train.deterministic",
        "train.devices",
        "train.log_every_steps",
        "train.compile_cache",
        "train.on_nan",
        "train.join_timeout_s",
        "train.peer_timeout_s",
        "checkpoint.every_steps",
        "checkpoint.keep_last",
        "checkpoint.keep_best",
        "log.wandb",
        "plugins.imports",
    }
)

# Keys in which the processes of one run may differ.
PER_PROCESS_KEYS = frozenset({"data.data_dir", "data.workers", "train.compile_cache"})


def with_normalisation(config: Config, theirs: dict[str, Any]) -> Config:
    """The settings with `data.mean` and `data.std` as in other `data` settings, unless given."""
    missing = {
        key: tuple(theirs[key])
        for key in ("mean", "std")
        if getattr(config.data, key) is None and theirs[key] is not None
    }
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **missing))


def to_dict(config: Config) -> dict[str, Any]:
    """The settings as nested plain values that YAML and JSON can hold."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, tuple | list) else value

    return plain(dataclasses.asdict(config))


def flatten(nested: dict[str, Any]) -> dict[str, Any]:
    """`{"data": {"canvas": 64}}` as `{"data.canvas": 64}`."""
    return {
        f"{section}.{key}": value for section, keys in nested.items() for key, value in keys.items()
    }


def unflatten(flat: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The nested settings that `flatten` took apart."""
    nested: dict[str, dict[str, Any]] = {}
    for name, value in flat.items():
        section, _, key = name.partition(".")
        nested.setdefault(section, {})[key] = value
    return nested


def as_made(settings: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Settings that a run left, with the keys they lack that had another value than the default.

    Before there was `data.eval_seed`, validation and test images were drawn by `train.seed`.
    """
    data = {"eval_seed": settings.get("train", {}).get("seed", 0), **settings.get("data", {})}
    return {**settings, "data": data}


def differing_keys(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys whose difference changes the run, each with its two values.

    FREE_KEYS are ignored, a normalisation that ours leave to model.init_from, and data.eval_seed
    where nothing is composed. A key that theirs lack, because they are older, had its default.
    """
    given = ("mean", "std") if ours["model"]["init_from"] else ()
    left_open = {f"data.{key}" for key in given if ours["data"][key] is None}
    if ours["data"]["composition"] == "plain":
        left_open.add("data.eval_seed")
    flat_ours, flat_theirs = flatten(ours), flatten(to_dict(Config())) | flatten(as_made(theirs))
    for flat in (flat_ours, flat_theirs):  # its default had a number
        flat["data.validation_examples"] = flat["data.validation_examples"] or 10_000
    return {
        key: (flat_ours.get(key), flat_theirs.get(key))
        for key in sorted(flat_ours.keys() | flat_theirs.keys())
        if key not in FREE_KEYS | left_open and flat_ours.get(key) != flat_theirs.get(key)
    }


def listed(differing: Mapping[str, tuple[Any, Any]]) -> str:
    """Differing settings in words, for an error message."""
    return "; ".join(f"{key} is {ours}, was {theirs}" for key, (ours, theirs) in differing.items())
