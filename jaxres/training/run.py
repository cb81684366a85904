"""A run that is begun or resumed: its directory, the state it starts from, what it writes to."""

import contextlib
import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jax
import numpy as np
import yaml

from jaxres.checkpoint import init_from
from jaxres.checkpoint.manager import Checkpoints
from jaxres.checkpoint.progress import Progress
from jaxres.checkpoint.shapes import abstract_like
from jaxres.config import Config, to_dict, with_normalisation
from jaxres.distributed.mesh import replicate
from jaxres.distributed.process_group import ALONE, ProcessGroup
from jaxres.logs.profile import StepProfiler
from jaxres.logs.run_log import NullLog, RunLog
from jaxres.logs.tensorboard import TensorBoard
from jaxres.logs.tracker import Tracker
from jaxres.logs.weights_and_biases import WeightsAndBiases
from jaxres.models.build import network
from jaxres.runtime.errors import InputError, Interrupted, TrainingFailed, os_reason
from jaxres.runtime.files import write_whole
from jaxres.training import transfer
from jaxres.training.not_finite import NotFinite
from jaxres.training.rundir import RunDirectory
from jaxres.training.saving import Saver, agreed_latest
from jaxres.training.setup import Setup, set_up
from jaxres.training.state import TrainState
from jaxres.training.transfer import Phase


@dataclasses.dataclass(frozen=True)
class Start:
    """What the first step of this process starts from."""

    setup: Setup  # its settings with the normalisation of the weights
    step: int
    state: TrainState
    progress: Progress
    devices_before: int
    weights_from: str = ""  # where they are from, if not random, in words

    @property
    def phase(self) -> Phase:
        """Which parameters the state trains: a new phase begins after the checkpoint before it."""
        return self.setup.phase(max(self.step - 1, 0))


@dataclasses.dataclass(frozen=True)
class Run:
    """A start and where its results go."""

    start: Start
    checkpoints: Checkpoints
    log: RunLog | NullLog
    saver: Saver
    not_finite: NotFinite
    profiler: StepProfiler


@contextlib.contextmanager
def start_run(
    config: Config,
    run_dir: Path,
    group: ProcessGroup = ALONE,
    *,
    profile: bool = False,
    other_data: bool = False,
) -> Iterator[Run]:
    """Begin a run in a directory, or resume the one that is there.

    Raises:
        InputError: settings, data or the directory do not fit; nothing has been changed.
    """
    setup = set_up(config, run_dir, group, other_data=other_data)
    with RunDirectory(run_dir, config, group) as directory:
        saved = agreed_latest(directory.checkpoints, group)
        start = begin(setup) if saved is None else resume(setup, directory.checkpoints, saved)
        log = _open_log(start)
        saver = Saver(directory.checkpoints, start.progress, group, log, saved)
        profiler = StepProfiler(run_dir / "profile" if profile and group.first else None)
        directory.keep()
        directory.opened.push(
            lambda kind, *_: log.close(failed=kind is not None and kind is not Interrupted)
        )
        for each in (profiler, setup.batches):
            directory.opened.callback(each.close)
        yield Run(
            start,
            directory.checkpoints,
            log,
            saver,
            NotFinite(config.train.on_nan, saver, log),
            profiler,
        )


def begin(setup: Setup) -> Start:
    """The state before the first step, from random weights or those of `model.init_from`."""
    config = setup.config
    fresh = network(config, classes=setup.classes)
    params, stats, weights_from = fresh.params, fresh.stats, ""
    if folder := config.model.init_from:
        given = init_from.load(config, params, stats, setup.replicated)
        params, stats = given.params, given.stats
        config = with_normalisation(config, given.normalisation)
        weights_from = f"weights of '{folder}'" + (", but for a new head" if given.new_head else "")
    # One program: leaf by leaf, each shape compiles zeros of its own (0.7 s for ResNet-18).
    begun = jax.jit(partial(setup.new_state, setup.phase(0)))
    return Start(
        setup=dataclasses.replace(setup, config=config),
        step=0,
        state=replicate(setup.mesh, begun(params, stats)),
        progress=Progress(
            devices=setup.mesh.size,
            data=setup.fingerprint,
            classes=list(setup.class_names),
            multi_label=setup.splits["train"].multi_label,
        ),
        devices_before=setup.mesh.size,
        weights_from=weights_from,
    )


def resume(setup: Setup, checkpoints: Checkpoints, saved: int) -> Start:
    """The state of a checkpoint, and the training batches after it.

    Raises:
        InputError: the checkpoint is damaged, or made on other data.
    """
    state = restore(setup, checkpoints, saved)
    config = with_normalisation(setup.config, checkpoints.read(saved, "config")["data"])
    progress = checkpoints.read_progress(saved)
    _require_same_data(setup, progress, saved)
    setup.batches.set_state(progress.iterator)
    devices_before = progress.devices or setup.mesh.size
    progress.devices, progress.data = setup.mesh.size, setup.fingerprint
    progress.classes = list(setup.class_names)
    progress.multi_label = setup.splits["train"].multi_label
    return Start(dataclasses.replace(setup, config=config), saved, state, progress, devices_before)


def restore(setup: Setup, checkpoints: Checkpoints, saved: int) -> TrainState:
    """The state of a checkpoint."""
    # A phase begins with the first step of an epoch, after the checkpoint between the two.
    phase = setup.phase(saved - 1)
    abstract = jax.eval_shape(partial(setup.new_state, phase), setup.net.params, setup.net.stats)
    items = abstract_like(abstract.to_dict(), setup.replicated)
    return TrainState(**checkpoints.restore(saved, items))


def roll_back(setup: Setup, checkpoints: Checkpoints, saved: int, step: int) -> TrainState:
    """The state of a checkpoint as that after a later step, for the compiled step to take.

    Where the later step ends an epoch, a phase that begins with the next is not begun.
    """
    state = restore(setup, checkpoints, saved)
    count = replicate(setup.mesh, np.asarray(step, np.int32))
    state = setup.strategy.enter(state.replace(step=count))
    before, phase = setup.phase(saved - 1), setup.phase(step - 1)
    return state if before.epoch == phase.epoch else unfreeze(setup, state, phase)


def unfreeze(setup: Setup, state: TrainState, phase: Phase) -> TrainState:
    """The state with an optimiser state for the parameters that begin to train in a phase."""
    state = setup.strategy.leave(state)
    begun = jax.jit(lambda params: phase.optimizer.init(transfer.split(params, phase.trained)[0]))
    fresh = replicate(setup.mesh, begun(state.params))
    grown = transfer.grown(state.opt_state, fresh)
    return setup.strategy.enter(state.replace(opt_state=grown))


def _open_log(start: Start) -> RunLog | NullLog:
    """The first process writes the settings and the log, the others nothing."""
    setup = start.setup
    if not setup.group.first:
        return NullLog()
    settings = yaml.safe_dump(to_dict(setup.config), sort_keys=False)
    write_run_file(setup.run_dir / "config.yaml", settings)
    trackers: list[Tracker] = [
        TensorBoard(setup.run_dir / "tensorboard", purge_step=start.step + 1)
    ]
    if project := setup.config.log.wandb:
        trackers.append(WeightsAndBiases(project, setup.run_dir, to_dict(setup.config)))
    return RunLog(
        setup.run_dir,
        trackers,
        total_steps=setup.total_steps,
        first_step=start.step,
        evaluated=start.progress.has_evaluated(start.step),
    )


def _require_same_data(setup: Setup, progress: Progress, saved: int) -> None:
    """Refuse, unless it is meant, to resume on other data than the checkpoint's."""
    if (differing := progress.differing_data(setup.fingerprint)) and not setup.other_data:
        raise InputError(
            f"'{setup.run_dir}' holds a run on other data than those of "
            f"{setup.config.data.dataset} here, at step {saved}: {differing}; prepare the "
            "former ones, give another --output-dir, or --allow-other-data to resume with these"
        )


def write_run_file(path: Path, text: str) -> None:
    """Write one of the run's files, whole.

    Raises:
        TrainingFailed: it cannot be written.
    """
    try:
        write_whole(path, text)
    except OSError as error:
        raise TrainingFailed(f"cannot write '{path}': {os_reason(error)}") from error
