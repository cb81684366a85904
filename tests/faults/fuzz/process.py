"""A reader's inputs in a process of its own, which it may bring down."""

import dataclasses
import faulthandler
import multiprocessing
import os
from multiprocessing.connection import Connection
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Task:
    """One reader's part."""

    reader: str
    inputs: int
    seed: int
    work: Path
    keep: Path


def environment() -> None:
    """As the tests have it, before anything imports JAX."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["JAX_NUM_CPU_DEVICES"] = "2"
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def in_a_process(task: Task) -> dict:
    """A row of the table. A reader that brings the process down has the outcome `crash`."""
    receiving, sending = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=try_reader, args=(task, sending))
    process.start()
    sending.close()
    try:
        row = receiving.recv()
    except EOFError:
        row = None
    process.join()
    if row is not None:
        return row
    kept = task.keep / f"{task.reader}-crash"
    task.keep.mkdir(parents=True, exist_ok=True)
    if (task.work / "input").is_dir():
        (task.work / "input").rename(kept)
    said = (task.work / "errors").read_text(errors="replace") if task.work.is_dir() else ""
    bad = [f"{kept}: the process ended with status {process.exitcode}: {said[-2000:]}"]
    row = {"reader": task.reader, "inputs": 1, "accepted": 0, "refused": 0, "unhandled": 1}
    return {**row, "slowest_s": 0.0, "peak_mib": 0.0, "bad": bad, "kinds": {"crash": 1}}


def try_reader(task: Task, sending: Connection) -> None:
    """In a process of its own."""
    environment()
    faulthandler.enable()
    from jaxres.runtime.screen import quiet_libraries
    from tests.faults.fuzz import campaign
    from tests.faults.fuzz.readers import READERS

    quiet_libraries()
    opened = READERS[task.reader].opened
    options = {"inputs": task.inputs, "seed": task.seed, "work": task.work, "keep": task.keep}
    counts = campaign.run(task.reader, opened, **options)
    row = {
        "reader": counts.reader,
        "inputs": counts.inputs,
        "accepted": counts.kinds["accepted"],
        "refused": counts.kinds["refused"],
        "unhandled": counts.unhandled,
        "slowest_s": round(counts.slowest_s, 3),
        "peak_mib": round(counts.peak_mib, 1),
        "kinds": dict(counts.kinds),
        "bad": counts.bad,
    }
    sending.send(row)
