"""What a training run is made of and does not change: devices, data, network, schedules."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxres.config import PER_PROCESS_KEYS, Config, flatten, to_dict
from jaxres.data.composed import ComposedDataset, open_split
from jaxres.data.pipeline import TrainBatches, train_batches
from jaxres.distributed import strategy
from jaxres.distributed.mesh import check_batch, make_mesh
from jaxres.distributed.process_group import ProcessGroup
from jaxres.distributed.strategy import Parallel
from jaxres.logs.summary import versions
from jaxres.models.build import abstract_network
from jaxres.models.pure import Net
from jaxres.runtime.errors import InputError
from jaxres.runtime.own_code import is_registered, own_code
from jaxres.training import losses, optim, transfer
from jaxres.training.optim import Schedule
from jaxres.training.state import TrainState, new_state
from jaxres.training.step import Step, make_train_step
from jaxres.training.transfer import Phase, Starts


@dataclasses.dataclass(frozen=True)
class Setup:
    """The fixed parts of a run; `net` has shapes in place of weights."""

    config: Config
    run_dir: Path
    other_data: bool  # resume on other data than the run began with
    group: ProcessGroup
    mesh: Mesh
    splits: Mapping[str, ComposedDataset]
    batches: TrainBatches
    net: Net
    starts: Starts
    learning_rate: Schedule
    strategy: Parallel

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the labels stand for."""
        return self.splits["train"].class_names

    @property
    def classes(self) -> int:
        """The number of classes of the dataset."""
        return len(self.class_names)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Size and checksum of each split."""
        return {split: each.fingerprint for split, each in self.splits.items()}

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch."""
        return self.batches.steps_per_epoch

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.config.train.epochs * self.steps_per_epoch

    @property
    def replicated(self) -> NamedSharding:
        """The sharding of an array that lies whole on every device."""
        return NamedSharding(self.mesh, P())

    def phase(self, step: int) -> Phase:
        """Which parameters train in a step, and by which optimiser."""
        epoch = step // self.steps_per_epoch
        return transfer.phase(self.config, self.starts, epoch, total_steps=self.total_steps)

    def new_state(self, phase: Phase, params: Any, stats: Any) -> TrainState:
        """The state before the first step of a phase."""
        ema = self.config.optim.ema_decay > 0
        return new_state(params, stats, phase.optimizer, ema=ema, trained=phase.trained)

    def train_step(self, phase: Phase) -> Step:
        """The training step of a phase, for one device's part of a batch."""
        return make_train_step(
            self.net, phase.optimizer, self.learning_rate, self.config, trained=phase.trained
        )

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch ends after a step."""
        return step % self.steps_per_epoch == 0

    def evaluates_after(self, step: int) -> bool:
        """Whether the weights after a step are evaluated."""
        epoch = step // self.steps_per_epoch
        due = self.ends_epoch(step) and epoch % self.config.train.evaluate_every_epochs == 0
        return due or step == self.total_steps


def set_up(
    config: Config, run_dir: Path, group: ProcessGroup, *, other_data: bool = False
) -> Setup:
    """Find the devices, open the data and trace the network; nothing is written.

    Raises:
        InputError: settings and data do not fit, or the processes of the run differ.
    """
    with group.together():
        mesh = make_mesh(config.train.devices)
        check_batch(config.data.batch_size, mesh.size, config.optim.accumulate_steps)
        losses.find_loss(config.train.loss)
        splits = {split: open_split(config, split) for split in ("train", "validation", "test")}
        losses.require_takes_labels(config.train.loss, multi_label=splits["train"].multi_label)
        batches = train_batches(splits["train"], config, process=group.index, processes=group.count)
    if group.count > 1:
        group.require_same(_shared_values(config, run_dir, splits, other_data=other_data))
    classes = len(splits["train"].class_names)
    net = abstract_network(config, classes=classes)
    _require_fits_each_side(config, net, classes)
    setup = Setup(
        config=config,
        run_dir=run_dir,
        other_data=other_data,
        group=group,
        mesh=mesh,
        splits=splits,
        batches=batches,
        net=net,
        starts=transfer.start_epochs(config.transfer, net, config.data.image_size),
        learning_rate=optim.learning_rate(
            config.optim, config.train.epochs * batches.steps_per_epoch
        ),
        strategy=strategy.create(config.train, mesh),
    )
    _try_out(setup, setup.phase(0))  # an optimiser that is not there is refused by the phase
    return setup


def _try_out(setup: Setup, phase: Phase) -> None:
    """Trace a step where a user's own code is part of it, before anything is written."""
    config = setup.config
    parts = {"model": config.model.name, "loss": config.train.loss, "optimiser": config.optim.name}
    own = [f"the {kind} '{name}'" for kind, name in parts.items() if is_registered(kind, name)]
    if not own:
        return
    side, examples = config.data.image_size, (config.data.batch_size,)
    classes = (setup.classes,) if setup.splits["train"].multi_label else ()
    batch = {
        "image": jax.ShapeDtypeStruct((*examples, side, side, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((*examples, *classes), jnp.uint8 if classes else jnp.int32),
    }
    with own_code(f"a step with {' and '.join(own)}"):
        state = jax.eval_shape(partial(setup.new_state, phase), setup.net.params, setup.net.stats)
        step = strategy.Jit(setup.mesh).compile(setup.train_step(phase), 1)
        jax.eval_shape(step, state, None, batch)


def _require_fits_each_side(config: Config, net: Net, classes: int) -> None:
    """Refuse a network whose weights depend on the side of its images, if that changes."""
    shapes = jax.tree.map(lambda leaf: leaf.shape, (net.params, net.stats))
    for side in sorted(set(config.data.sides_by_epoch().values()) - {config.data.canvas}):
        smaller = dataclasses.replace(config, data=config.data.at_side(side))
        other = abstract_network(smaller, classes=classes)
        if jax.tree.map(lambda leaf: leaf.shape, (other.params, other.stats)) != shapes:
            raise InputError(
                f"data.progressive has the side {side}, at which {config.model.name} has other "
                f"weights than at data.canvas ({config.data.canvas}); allowed: networks that pool "
                "over the image"
            )


def _shared_values(
    config: Config, run_dir: Path, splits: Mapping[str, ComposedDataset], *, other_data: bool
) -> dict[str, Any]:
    """What the processes of a run must have in common."""
    settings = flatten(to_dict(config))
    return {
        **{key: value for key, value in settings.items() if key not in PER_PROCESS_KEYS},
        "--output-dir": str(run_dir.absolute()),
        "devices": jax.local_device_count(),
        **{f"version of {name}": each for name, each in versions().items()},
        **{
            f"the {split} data's checksum": each.fingerprint["checksum"]
            for split, each in splits.items()
        },
        "--allow-other-data": other_data,
    }
