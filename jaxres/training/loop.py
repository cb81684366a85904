"""The training loop: take a batch, step, log, save, evaluate."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from jaxres.config import Config, to_dict
from jaxres.data.feed import Feed
from jaxres.distributed import process_group
from jaxres.distributed.signals import StopSignal
from jaxres.evaluation.evaluator import Evaluator, resident_of
from jaxres.logs.summary import summarise
from jaxres.logs.window import Window
from jaxres.runtime import compilation
from jaxres.runtime.errors import Interrupted
from jaxres.training import transfer
from jaxres.training.announce import announce
from jaxres.training.calls import TrainCalls
from jaxres.training.evaluate import evaluate, evaluate_best
from jaxres.training.run import Run, roll_back, start_run, unfreeze, write_run_file
from jaxres.training.state import TrainState


def train(
    config: Config, run_dir: Path, *, profile: bool = False, other_data: bool = False
) -> dict[str, Any]:
    """Train, or resume training, in a run directory; then evaluate the best checkpoint on test.

    Gives what `summary.json` holds. With `profile`, a `jax.profiler` trace of some steps is
    written to `run_dir/profile`. Started as one of several processes (`process_group.join`), it
    takes its part: each reads and computes its share, the first writes, and the others give
    nothing. A run is resumed on other data than it began with only if `other_data` says so.

    Raises:
        InputError: settings, data or the run directory do not fit; nothing has been changed.
        TrainingFailed: the loss is no longer finite.
        Interrupted: SIGTERM or SIGINT came and the state has been saved.
    """
    started = time.perf_counter()
    compilation.use_cache(config.train.compile_cache)
    group = process_group.join(
        join_timeout_s=config.train.join_timeout_s, peer_timeout_s=config.train.peer_timeout_s
    )
    with (
        group.watched(config.train.peer_timeout_s),
        StopSignal(several=group.count > 1) as stop,
        start_run(config, run_dir, group, profile=profile, other_data=other_data) as run,
        jax.transfer_guard("disallow"),
    ):
        setup = run.start.setup
        evaluator = Evaluator(setup.net, setup.config, setup.mesh)
        train_steps(run, evaluator, stop)
        test = evaluate_best(run, evaluator, stop)
        if test is None:
            raise interrupted(run, stop)
    if not group.first:
        return {}
    parameters = sum(leaf.size for leaf in jax.tree.leaves(setup.net.params))
    summary = summarise(config, parameters, setup.splits, run.start.progress, test, setup.mesh)
    summary["wall_s"] = time.perf_counter() - started
    write_run_file(run_dir / "summary.json", json.dumps(summary, indent=2) + "\n")
    return summary


def train_steps(run: Run, evaluator: Evaluator, stop: StopSignal) -> None:
    """Every step to the last, or to a signal.

    Raises:
        TrainingFailed: a loss or gradient is not finite, or the last checkpoint cannot be written.
        Interrupted: a signal came.
    """
    setup, step, progress = run.start.setup, run.start.step, run.start.progress
    config, strategy, saver = setup.config, setup.strategy, run.saver
    announce(run)
    lengths = call_lengths(
        step, setup.total_steps, setup.steps_per_epoch, config.train.steps_per_call
    )
    feed = Feed(setup.batches, lengths, strategy.put_batch, depth=config.data.prefetch)
    window = Window(feed, strategy, config.data.batch_size)
    validation = evaluator.on(setup.splits["validation"])
    resident = strategy.put_resident(resident_of(setup.splits["train"]))
    state = strategy.enter(run.start.state)
    phase = run.start.phase
    train_call = TrainCalls(setup, phase)

    if step and setup.evaluates_after(step) and not progress.has_evaluated(step):
        evaluate(run, validation, state, step, stop)  # the run ended before it could

    for batch, steps in feed:
        if setup.ends_epoch(step) and (now := setup.phase(step)).epoch != phase.epoch:
            phase, state, train_call = now, unfreeze(setup, state, now), TrainCalls(setup, now)
            run.log.say(
                f"after epoch {now.epoch}: {transfer.describe(setup.net.params, now.trained)}"
            )
        if stop.name and step == (saver.saved or 0):
            break  # nothing is left to save

        run.profiler.before(step)
        called = train_call(state, resident, batch, steps)
        state = called.state
        step += steps
        if called.compile_s is None:
            window.add(called.metrics, steps=steps)
        else:
            window.add_untimed(called.metrics)
            progress.totals["compile_s"] += called.compile_s
            progress.compile_cache = called.compile_cache
        run.profiler.after(step, called.metrics)
        run.log.advance(step)

        stopping = stop.reached()
        evaluates = setup.evaluates_after(step)
        saves = evaluates or stopping or crossed(step, steps, config.checkpoint.every_steps)
        logs = setup.ends_epoch(step) or crossed(step, steps, config.train.log_every_steps)
        if (saves or logs) and (numbers := window.close()):
            if (saved := run.not_finite.back_to(numbers, step)) is not None:
                state = roll_back(setup, run.checkpoints, saved, step)
            elif not run.not_finite.all_skipped(numbers, step):
                run.not_finite.require_finite(numbers, step)
                log_window(run, numbers, step)
        if saves:
            save(run, state, step)
        if stopping:
            break
        if evaluates:
            evaluate(run, validation, state, step, stop)
        if saves:
            window.restart()

    with progress.timed("checkpoint_s"):
        saver.finish(step, lambda: strategy.leave(state).to_dict())
    if stop.name:
        raise interrupted(run, stop)


def log_window(run: Run, numbers: dict[str, float], step: int) -> None:
    """Write the row of the steps since the last one."""
    totals = run.start.progress.totals
    for key in ("pictures", "seconds", "wait_s"):
        totals[key] += numbers[key]
    # A window of nothing but the compiling call has no speed.
    timed_steps = numbers["pictures"] > 0
    seconds = numbers["seconds"]
    run.log.row(
        {
            "step": step,
            "epoch": step / run.start.setup.steps_per_epoch,
            "split": "train",
            "loss": numbers["loss"],
            "accuracy": numbers["accuracy"],
            "learning_rate": numbers["learning_rate"],
            "grad_norm": numbers["grad_norm"],
            "skipped_steps": int(numbers["skipped"]),
            "images_per_s": numbers["pictures"] / seconds if timed_steps else None,
            "data_wait_share": numbers["wait_s"] / seconds if timed_steps else None,
            "host_input_share": numbers["host_s"] / seconds if timed_steps else None,
        }
    )


def save(run: Run, state: TrainState, step: int) -> None:
    """Start writing a checkpoint, once the one before is written."""
    setup, progress = run.start.setup, run.start.progress
    with progress.timed("checkpoint_s"):
        items = setup.strategy.leave(state).to_dict()
        progress.iterator = setup.batches.state_after(step)
        run.saver.check()
        run.saver.start(step, items, to_dict(setup.config))


def interrupted(run: Run, stop: StopSignal) -> Interrupted:
    """What a run that a signal stopped says last."""
    setup, saved = run.start.setup, run.saver.saved
    if saved is None:
        return Interrupted(f"{stop.name}: stopped before the first step; nothing to save")
    return Interrupted(
        f"{stop.name}: saved step {saved} of {setup.total_steps} in '{setup.run_dir}'; "
        "the same command resumes from there"
    )


def crossed(step: int, steps: int, every: int | None) -> bool:
    """Whether a multiple of `every` lies in the last `steps` steps."""
    return every is not None and step // every > (step - steps) // every


def call_lengths(
    step: int, total_steps: int, steps_per_epoch: int, steps_per_call: int
) -> Iterator[int]:
    """How many steps each dispatch runs: `steps_per_call`, less where an epoch ends before."""
    while step < total_steps:
        length = min(steps_per_call, steps_per_epoch - step % steps_per_epoch)
        yield length
        step += length
