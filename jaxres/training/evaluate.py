"""Evaluation in a training run: of each checkpoint on validation, of the best one on test."""

import json
import math
import time
from typing import Any

from jaxres.checkpoint.progress import SCORE
from jaxres.checkpoint.shapes import abstract_like
from jaxres.distributed.signals import StopSignal
from jaxres.evaluation.evaluator import Evaluator, SplitEvaluator
from jaxres.training.run import Run
from jaxres.training.state import TrainState

Metrics = dict[str, Any]


def evaluate(
    run: Run, validation: SplitEvaluator, state: TrainState, step: int, stop: StopSignal
) -> None:
    """Evaluate on the validation split what was saved last, unless a signal comes first."""
    began = time.perf_counter()
    weights = run.start.setup.strategy.leave(state).variables
    metrics = validation.evaluate_until(stop.reached, weights)
    seconds = time.perf_counter() - began
    run.start.progress.totals["evaluate_s"] += seconds
    if metrics is None:
        return
    if not math.isfinite(metrics["loss"]):
        run.saver.drop(step)
    run.not_finite.require_finite_evaluation(metrics["loss"], step)
    row = _row(run, "validation", step, metrics, seconds)
    run.log.row(row)
    with run.start.progress.timed("checkpoint_s"):
        run.saver.add_evaluation(row)


def evaluate_best(run: Run, evaluator: Evaluator, stop: StopSignal) -> Metrics | None:
    """Metrics of the best checkpoint on the test split, with its step as `checkpoint`.

    None if a signal came first.
    """
    setup = run.start.setup
    best = _best_there_is(run)
    abstract = {"params": setup.net.params, "stats": setup.net.stats}
    weights = run.checkpoints.restore_weights(best, abstract_like(abstract, setup.replicated))
    began = time.perf_counter()
    metrics = evaluator.on(setup.splits["test"]).evaluate_until(stop.reached, weights)
    seconds = time.perf_counter() - began
    run.start.progress.totals["evaluate_s"] += seconds
    if metrics is None:
        return None
    run.log.row(_row(run, "test", best, metrics, seconds))
    return {**metrics, "checkpoint": best}


def _best_there_is(run: Run) -> int:
    """The step of the best checkpoint, or of the newest if someone has removed that."""
    there, *_ = run.start.setup.group.gather(json.dumps(run.checkpoints.steps()))
    steps = json.loads(there)
    noted = run.start.progress.best
    best = noted["step"] if noted else max(steps)
    if best in steps:
        return best
    run.log.say(
        f"warning: the best checkpoint, step {best}, is gone from '{run.checkpoints.folder}': "
        f"testing the newest, step {max(steps)}"
    )
    return max(steps)


def _row(run: Run, split: str, step: int, metrics: Metrics, seconds: float) -> dict[str, Any]:
    """The row of an evaluation of the weights after `step`."""
    return {
        "step": step,
        "epoch": step / run.start.setup.steps_per_epoch,
        "split": split,
        "loss": metrics["loss"],
        "accuracy": metrics["accuracy"],
        **{key: metrics[key] for key in (SCORE,) if key in metrics},
        "examples": metrics["examples"],
        "seconds": seconds,
    }
