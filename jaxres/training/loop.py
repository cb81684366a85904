"""The training loop: take a batch, step, log, evaluate, save."""

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import yaml
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxres.checkpoint import init_from
from jaxres.checkpoint.manager import abstract_like
from jaxres.checkpoint.progress import Progress
from jaxres.config import PER_PROCESS_KEYS, Config, flatten, to_dict, with_normalisation
from jaxres.data.feed import Feed
from jaxres.data.pictures import open_split
from jaxres.data.pipeline import train_batches
from jaxres.distributed import process_group, strategy
from jaxres.distributed.mesh import check_batch, make_mesh, replicate
from jaxres.distributed.process_group import Peers
from jaxres.evaluation.evaluator import Evaluator, resident_of
from jaxres.logs.profile import StepProfiler
from jaxres.logs.run_log import RunLog, Silence
from jaxres.logs.summary import summarise, versions
from jaxres.logs.window import Window
from jaxres.models.build import abstract_network, network
from jaxres.runtime import compilation
from jaxres.runtime.errors import InputError, Interrupted, TrainingFailed
from jaxres.runtime.files import write_whole
from jaxres.training import optim, transfer
from jaxres.training.not_finite import NotFinite
from jaxres.training.rundir import RunDirectory
from jaxres.training.saving import Saver, agreed_latest
from jaxres.training.signals import StopSignal
from jaxres.training.state import new_state, variables
from jaxres.training.step import make_train_step


def train(
    config: Config, run_dir: Path, *, profile: bool = False, other_data: bool = False
) -> dict[str, Any]:
    """Train, or go on training, in a run directory; then evaluate the best checkpoint on test.

    Gives what `summary.json` holds. With `profile`, a `jax.profiler` trace of some steps is
    written to `run_dir/profile`. Started as one of several processes (`processes.join`), it takes
    its part: each reads and computes its share, the first writes, and the others give nothing.
    A run goes on with other data than it began with only if `other_data` says so.

    Raises:
        InputError: settings, data or the run directory do not fit; nothing has been changed.
        TrainingFailed: the loss is no longer finite.
        Interrupted: SIGTERM or SIGINT came and the state has been saved.
    """
    started = time.perf_counter()
    compilation.use_cache(config.train.compile_cache)
    peers = process_group.join(
        join_timeout_s=config.train.join_timeout_s, peer_timeout_s=config.train.peer_timeout_s
    )
    with (
        peers.watched(config.train.peer_timeout_s),
        StopSignal(several=peers.count > 1) as stop,
        Run(config, run_dir, profile=profile, other_data=other_data, peers=peers) as run,
        jax.transfer_guard("disallow"),
    ):
        run.train(stop)
        test = run.test(stop)
    if not peers.first:
        return {}
    parameters = sum(leaf.size for leaf in jax.tree.leaves(run.net.params))
    summary = summarise(config, parameters, run.pictures, run.progress, test, run.mesh)
    summary["wall_s"] = time.perf_counter() - started
    _write(run_dir / "summary.json", json.dumps(summary, indent=2) + "\n")
    return summary


class Run:
    """A run in progress: the state and what logging, evaluating and saving it share."""

    def __init__(
        self,
        config: Config,
        run_dir: Path,
        *,
        profile: bool = False,
        other_data: bool = False,
        peers: Peers = process_group.ALONE,
    ):
        """Load the data and take the run directory, then start afresh or from its checkpoint."""
        self.config = config
        self.run_dir = run_dir
        self.peers = peers
        self.other_data = other_data
        with peers.together():
            self._read(config)
        if peers.count > 1:
            peers.require_same(self._facts())
        classes = len(self.pictures["train"].class_names)
        self.steps_per_epoch = self.batches.steps_per_epoch
        self.total_steps = config.train.epochs * self.steps_per_epoch
        self.net = abstract_network(config, classes=classes)
        self.starts = transfer.start_epochs(config.transfer, self.net, config.data.picture_side)
        self.stage = self._stage(0)
        self.learning_rate = optim.learning_rate(config.optim, self.total_steps)
        self.way = strategy.create(config.train, self.mesh)
        self.calls: dict[int, Callable[..., Any]] = {}  # by the number of steps they run
        self.profiler = StepProfiler(run_dir / "profile" if profile and peers.first else None)

        self.directory = RunDirectory(run_dir, config, peers)
        self.checkpoints = self.directory.checkpoints
        try:
            self._begin(classes)
        except BaseException:
            self.directory.give_up()
            raise

    def _read(self, config: Config) -> None:
        """Meet the devices and the data."""
        self.mesh = make_mesh(config.train.devices)
        check_batch(config.data.batch_size, self.mesh.size, config.optim.accumulate_steps)
        self.pictures = {
            split: open_split(config, split) for split in ("train", "validation", "test")
        }
        self.data = {split: each.facts for split, each in self.pictures.items()}
        self.batches = train_batches(
            self.pictures["train"],
            config,
            process=self.peers.index,
            processes=self.peers.count,
        )

    def _facts(self) -> dict[str, Any]:
        """What the processes of a run must have in common."""
        settings = flatten(to_dict(self.config))
        return {
            **{key: value for key, value in settings.items() if key not in PER_PROCESS_KEYS},
            "--output-dir": str(self.run_dir.absolute()),
            "devices": jax.local_device_count(),
            **{f"version of {name}": each for name, each in versions().items()},
            **{
                f"the {split} data's checksum": facts["checksum"]
                for split, facts in self.data.items()
            },
            "--allow-other-data": self.other_data,
        }

    def _begin(self, classes: int) -> None:
        """Start afresh, or from the newest checkpoint."""
        saved = agreed_latest(self.checkpoints, self.peers)
        self.step = saved or 0
        self.started_from = ""
        if saved is None:
            self._start(classes)
            self.progress = Progress()
        else:
            self._restore(saved)
            self.config = with_normalisation(
                self.config, self.checkpoints.read(saved, "config")["data"]
            )
            self.progress = self.checkpoints.read_progress(saved)
            self._check_data(saved)
            self.batches.set_state(self.progress.iterator)
        self.devices_before = self.progress.devices or self.mesh.size
        self.progress.devices = self.mesh.size
        self.progress.data = self.data
        self.log = Silence()
        if self.peers.first:
            settings = yaml.safe_dump(to_dict(self.config), sort_keys=False)
            _write(self.run_dir / "config.yaml", settings)
            self.log = RunLog(
                self.run_dir,
                total_steps=self.total_steps,
                first_step=self.step,
                evaluated=self.progress.has_evaluated(self.step),
            )
        self.saver = Saver(self.checkpoints, self.progress, self.peers, self.log, saved)
        self.not_finite = NotFinite(self.config.train.on_nan, self.saver, self.log)
        for made in (self.log, self.profiler, self.batches):
            self.directory.opened.callback(made.close)

    def _check_data(self, saved: int) -> None:
        """Refuse, unless it is meant, to go on with other data than the checkpoint's.

        Raises:
            InputError: naming the splits that differ.
        """
        if (differing := self.progress.differing_data(self.data)) and not self.other_data:
            raise InputError(
                f"'{self.run_dir}' holds a run on other data than those of "
                f"{self.config.data.dataset} here, at step {saved}: {differing}; prepare the "
                "former ones, give another --output-dir, or --allow-other-data to go on with these"
            )

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *error: object) -> None:
        self.directory.close()

    def train(self, stop: StopSignal) -> None:
        """Every step up to the last, or up to a signal."""
        config = self.config
        self._announce()
        lengths = call_lengths(
            self.step, self.total_steps, self.steps_per_epoch, config.train.steps_per_call
        )
        feed = Feed(self.batches, lengths, self.way.put_batch, depth=config.data.prefetch)
        self.window = Window(feed, self.way, config.data.batch_size)
        self.evaluator = Evaluator(self.net, config, self.pictures["validation"], self.mesh)
        resident = self.way.put_resident(resident_of(self.pictures["train"]))
        self.state = self.way.enter(self.state)
        if self.step and self._evaluates() and not self.progress.has_evaluated(self.step):
            self._evaluate(stop)  # which a signal, or worse, prevented
        for batch, steps in feed:
            if self._ends_epoch():
                self._unfreeze()
            if stop.name and self.step == (self.saver.saved or 0):
                break  # nothing that is not saved
            self._call(resident, batch, steps)
            stopping = stop.reached()
            if self._ends_epoch() or self._crossed(steps, config.train.log_every_steps):
                self._log_window()
            evaluates = self._evaluates()
            if evaluates or stopping or self._crossed(steps, config.checkpoint.every_steps):
                self._save()
            if stopping:
                break
            if evaluates:
                self._evaluate(stop)
        self.saver.finish(self.step, lambda: self.way.leave(self.state))
        self._raise_if_stopped(stop)

    def _raise_if_stopped(self, stop: StopSignal) -> None:
        saved = self.saver.saved
        if stop.name and saved is None:
            raise Interrupted(f"{stop.name}: stopped before the first step; nothing to save")
        if stop.name:
            raise Interrupted(
                f"{stop.name}: saved step {saved} of {self.total_steps} in "
                f"'{self.run_dir}'; the same command goes on from there"
            )

    def test(self, stop: StopSignal) -> dict[str, Any]:
        """Metrics of the best checkpoint on the test split, and the best checkpoint's step.

        Raises:
            Interrupted: a signal came first.
        """
        best = self._best_there_is()
        abstract = {"params": self.net.params, "stats": self.net.stats}
        weights = self.checkpoints.restore_weights(best, self._replicated(abstract))
        began = time.perf_counter()
        metrics = self.evaluator.on(self.pictures["test"]).unless(stop.reached, weights)
        if metrics is None:
            self._raise_if_stopped(stop)
        assert metrics is not None
        self._log_evaluation("test", best, metrics, time.perf_counter() - began)
        return {**metrics, "checkpoint": best}

    def _best_there_is(self) -> int:
        """The step of the best checkpoint, or of the newest if someone has removed that."""
        there, *_ = self.peers.gather(json.dumps(self.checkpoints.steps()))
        steps = json.loads(there)
        best = self.progress.best["step"] if self.progress.best else max(steps)
        if best in steps:
            return best
        self.log.say(
            f"warning: the best checkpoint, step {best}, is gone from '{self.checkpoints.folder}': "
            f"testing the newest, step {max(steps)}"
        )
        return max(steps)

    def _start(self, classes: int) -> None:
        """The state before the first step, from random weights or those of `model.init_from`."""
        fresh = network(self.config, classes=classes)
        params, stats = fresh.params, fresh.stats
        if folder := self.config.model.init_from:
            given = init_from.load(self.config, params, stats, NamedSharding(self.mesh, P()))
            params, stats = given.params, given.stats
            self.config = with_normalisation(self.config, given.normalisation)
            self.started_from = f"weights of '{folder}'" + (
                ", but for a new head" if given.new_head else ""
            )
        # One program: leaf by leaf, each shape compiles zeros of its own (0.7 s for ResNet-18).
        begin = jax.jit(self._new_state)
        self.state = replicate(self.mesh, begin(params, stats))

    def _new_state(self, params: Any, stats: Any) -> Any:
        _, trained, optimizer = self.stage
        ema = self.config.optim.ema_decay > 0
        return new_state(params, stats, optimizer, ema=ema, trained=trained)

    def _restore(self, saved: int) -> None:
        """The state of a checkpoint, and the stage it was made in."""
        # A stage begins with the first step of an epoch, after the checkpoint between the two.
        self.stage = self._stage(saved - 1)
        abstract = jax.eval_shape(self._new_state, self.net.params, self.net.stats)
        self.state = self.checkpoints.restore(saved, self._replicated(abstract))

    def _stage(self, step: int) -> transfer.Stage:
        """What trains in a step."""
        return transfer.stage(
            self.config,
            self.starts,
            step // self.steps_per_epoch,
            total_steps=self.total_steps,
        )

    def _unfreeze(self) -> None:
        """At the start of an epoch, give what begins to train an optimiser state."""
        stage = self._stage(self.step)
        if stage.epoch == self.stage.epoch:
            return
        self.stage = stage
        self.calls.clear()
        state = self.way.leave(self.state)
        begin = jax.jit(
            lambda params: stage.optimizer.init(transfer.split(params, stage.trained)[0])
        )
        fresh = replicate(self.mesh, begin(state["params"]))
        opt_state = transfer.grown(state["opt_state"], fresh)
        self.state = self.way.enter({**state, "opt_state": opt_state})
        self.log.say(
            f"after epoch {stage.epoch}: {transfer.describe(self.net.params, stage.trained)}"
        )

    def _replicated(self, abstract: Any) -> Any:
        return abstract_like(abstract, NamedSharding(self.mesh, P()))

    def _announce(self) -> None:
        config, device = self.config, self.mesh.devices.flat[0]
        self.log.say(
            f"{config.model.name} on {config.data.dataset}: "
            f"{len(self.pictures['train'])} training examples, "
            f"{self.total_steps} steps of {config.data.batch_size}, "
            f"{self.mesh.size} x {device.device_kind} by {config.train.parallel}, "
            f"rendered on the {config.data.render}"
        )
        if partial := self.pictures["train"].source.partial:
            self.log.say(f"{config.data.dataset} is partial: {partial}")
        if self.started_from:
            self.log.say(f"starting from the {self.started_from}")
        if self.stage.trained is not None:
            frozen = (
                "" if config.model.init_from else "; the others stay random: no model.init_from"
            )
            self.log.say(transfer.describe(self.net.params, self.stage.trained) + frozen)
        if self.step:
            self.log.say(f"going on from step {self.step} in '{self.run_dir}'")
        if self.mesh.size != self.devices_before:
            norms = "" if config.model.sync_batch_norm else "batch norm, "
            self.log.say(
                f"note: on {self.mesh.size} devices, before on {self.devices_before}: {norms}"
                "dropout and rounding depend on how many share a batch, so other numbers follow"
            )

    def _call(self, resident: Any, batch: Any, steps: int) -> None:
        """One dispatch of `steps` training steps; the first of a length compiles."""
        self.profiler.before(self.step)
        began = time.perf_counter()
        compiles = steps not in self.calls
        if compiles:
            _, trained, optimizer = self.stage
            step = make_train_step(
                self.net, optimizer, self.learning_rate, self.config, trained=trained
            )
            self.calls[steps] = self.way.compile(step, steps)
        with compilation.watch() as programs:
            self.state, metrics = self.calls[steps](self.state, resident, batch)
        self.step += steps
        if compiles:
            self.window.add_untimed(metrics)
            self.progress.totals["compile_s"] += time.perf_counter() - began
            self.progress.compile_cache = compilation.outcome(programs)
        else:
            self.window.add(metrics, steps=steps)
        self.profiler.after(self.step, metrics)
        self.log.advance(self.step)

    def _crossed(self, steps: int, every: int | None) -> bool:
        """Whether a multiple of `every` lies in the last `steps` steps."""
        return every is not None and self.step // every > (self.step - steps) // every

    def _ends_epoch(self) -> bool:
        return self.step % self.steps_per_epoch == 0

    def _evaluates(self) -> bool:
        epoch = self.step // self.steps_per_epoch
        due = self._ends_epoch() and epoch % self.config.train.evaluate_every_epochs == 0
        return due or self.step == self.total_steps

    def _log_window(self) -> None:
        """Fetch the window's metrics and write its row; stop the run if they are not finite."""
        numbers = self.window.close()
        if not numbers:
            return
        if (saved := self.not_finite.back_to(numbers, self.step)) is not None:
            self._go_back(saved)
            return
        if self.not_finite.all_skipped(numbers, self.step):
            return
        self.not_finite.require_finite(numbers, self.step)
        totals = self.progress.totals
        for key in ("pictures", "seconds", "wait_s"):
            totals[key] += numbers[key]
        # A window of nothing but the compiling call has no speed.
        timed = numbers["pictures"] > 0
        self.log.row(
            {
                "step": self.step,
                "epoch": self.step / self.steps_per_epoch,
                "split": "train",
                "loss": numbers["loss"],
                "accuracy": numbers["accuracy"],
                "learning_rate": numbers["learning_rate"],
                "grad_norm": numbers["grad_norm"],
                "skipped_steps": int(numbers["skipped"]),
                "images_per_s": numbers["pictures"] / numbers["seconds"] if timed else None,
                "data_wait_share": numbers["wait_s"] / numbers["seconds"] if timed else None,
                "host_input_share": numbers["host_s"] / numbers["seconds"] if timed else None,
            }
        )

    def _save(self) -> None:
        """Start writing a checkpoint."""
        self._log_window()
        state = self.way.leave(self.state)
        self.progress.iterator = self.batches.state_after(self.step)
        self.saver.check()
        self.saver.start(self.step, state, to_dict(self.config))
        self.window.restart()

    def _evaluate(self, stop: StopSignal) -> None:
        """Evaluate on the validation split what was saved last, unless a signal comes first."""
        began = time.perf_counter()
        weights = variables(self.way.leave(self.state))
        metrics = self.evaluator.unless(stop.reached, weights)
        if metrics is not None:
            if not math.isfinite(metrics["loss"]):
                self.saver.drop(self.step)
            self.not_finite.require_finite({"validation loss": metrics["loss"]}, self.step)
            seconds = time.perf_counter() - began
            row = self._log_evaluation("validation", self.step, metrics, seconds)
            self.saver.rate(row)
        self.window.restart()

    def _log_evaluation(
        self, split: str, step: int, metrics: dict[str, Any], seconds: float
    ) -> dict[str, Any]:
        """Write the row of an evaluation of the weights after `step`."""
        row = {
            "step": step,
            "epoch": step / self.steps_per_epoch,
            "split": split,
            "loss": metrics["loss"],
            "accuracy": metrics["accuracy"],
            "examples": metrics["examples"],
            "seconds": seconds,
        }
        self.log.row(row)
        return row

    def _go_back(self, saved: int) -> None:
        """Take the state of a checkpoint for that of this step."""
        self._restore(saved)
        step = replicate(self.mesh, np.asarray(self.step, np.int32))
        self.state = self.way.enter({**self.state, "step": step})
        self._unfreeze()


def _write(path: Path, text: str) -> None:
    """One of the run's files, whole.

    Raises:
        TrainingFailed: it cannot be written.
    """
    try:
        write_whole(path, text)
    except OSError as error:
        raise TrainingFailed(f"cannot write '{path}': {error.strerror or error}") from error


def call_lengths(
    step: int, total_steps: int, steps_per_epoch: int, steps_per_call: int
) -> Iterator[int]:
    """How many steps each dispatch runs: `steps_per_call`, less where an epoch ends before."""
    while step < total_steps:
        length = min(steps_per_call, steps_per_epoch - step % steps_per_epoch)
        yield length
        step += length
