"""Checkpoints and run directories: every file of one, damaged; a changed value must be noticed."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from jaxres.config import CheckpointConfig, Config, to_dict
from jaxres.runtime.errors import InputError
from tests.faults.fuzz import trees
from tests.faults.fuzz.damage import damaged_json, damaged_tree, junk
from tests.faults.fuzz.reader import Reader, unless_same
from tests.faults.fuzz.trees import Tree

STEPS = (3, 5)


def _state(step: int) -> dict[str, Any]:
    import jax.numpy as jnp

    return {
        "step": jnp.int32(step),
        "params": {"head": {"linear": {"kernel": jnp.arange(40.0).reshape(4, 10) + step}}},
        "stats": {"norm": {"mean": jnp.ones(4)}},
        "opt_state": ({"count": jnp.int32(step)}, (jnp.zeros((4, 10)),)),
    }


def _save(folder: Path) -> None:
    from jaxres.checkpoint.manager import Checkpoints
    from jaxres.checkpoint.progress import Progress

    writer = Checkpoints(folder / "checkpoints", CheckpointConfig(keep_last=9))
    progress = Progress()
    for step in STEPS:
        row = {"step": step, "epoch": step / 2, "accuracy": 0.5, "loss": float(step)}
        progress.iterator = {"next_step": step}
        writer.save(step, _state(step), progress=progress.to_json(), config=to_dict(Config()))
        writer.wait()
        writer.add_evaluation(step, row)
        progress.note(row)
    writer.close()


@contextlib.contextmanager
def saved(scratch: Path) -> Iterator[Reader]:
    """What `evaluate`, `predict`, `model.init_from` and resuming read of a checkpoint."""
    import jax
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    from jaxres.checkpoint.reader import open_run
    from jaxres.checkpoint.shapes import abstract_like
    from jaxres.distributed.mesh import make_mesh
    from jaxres.evaluation.run import open_checkpoint

    _save(scratch)
    valid = trees.read(scratch)
    sharding = NamedSharding(make_mesh(1), P())
    abstract = abstract_like(_state(0), sharding)
    weights = {key: abstract[key] for key in ("params", "stats")}

    def read(source: Path, output: Path) -> Any:
        opened = open_checkpoint(source, "best")
        with contextlib.closing(open_run(source)) as checkpoints:
            checkpoints.restore_weights(opened.step, weights)
            last = checkpoints.find("last")
            state = checkpoints.restore(last, abstract)
            progress = checkpoints.read_progress(last).to_json()
        arrays = jax.device_get((opened.weights, state))
        return [opened.step, to_dict(opened.config), progress, jax.tree.leaves(arrays)]

    expected = []
    # A step may be gone as a whole: then the other one is there. Or it is not evaluated yet.
    gone = [f"{step}/{item}" for step in STEPS for item in ("", "metrics/")]
    for removed in (None, *gone):
        part = {n: c for n, c in valid.items() if not n.startswith(f"checkpoints/{removed}")}
        trees.write(part, scratch / "part")
        with contextlib.suppress(InputError):
            expected.append(read(scratch / "part", scratch))

    def is_read(name: str) -> bool:
        return not name.endswith("commit_success.txt")

    def wrong(tree: Tree, content: Any) -> str | None:
        """Right checksums of other values are not damage."""
        sums = [name for name in valid if name.endswith("checksums/metadata")]
        as_saved = all(tree.get(name, valid[name]) == valid[name] for name in sums)
        return unless_same(*expected)(tree, content) if as_saved else None

    made = st.one_of(damaged_tree(valid, is_read), damaged_tree(valid, is_read), _json_items(valid))
    yield Reader(made, read, wrong)


@st.composite
def _json_items(draw: st.DrawFn, valid: dict[str, bytes]) -> Tree:
    """Settings or progress of other meaning, whose checksums are right."""
    from jaxres.checkpoint import checksum

    step, item = draw(st.sampled_from(STEPS)), draw(st.sampled_from(("config", "progress")))
    folder = f"checkpoints/{step}"
    content = draw(damaged_json(valid[f"{folder}/{item}/metadata"]))
    tree = {**valid, f"{folder}/{item}/metadata": content}
    try:
        value = json.loads(content)
        sums = {**json.loads(valid[f"{folder}/checksums/metadata"]), item: checksum.of_json(value)}
        tree[f"{folder}/checksums/metadata"] = json.dumps(sums).encode()
    except (ValueError, RecursionError):
        pass
    return tree


ROW = {"step": 3, "split": "train", "loss": 1.0}


@st.composite
def _rows(draw: st.DrawFn) -> bytes:
    row = json.dumps(ROW).encode()
    line = st.one_of(
        st.just(row), damaged_json(row), junk().map(lambda value: json.dumps(value).encode())
    )
    return b"\n".join(draw(st.lists(line, max_size=5)))


@contextlib.contextmanager
def directories(scratch: Path) -> Iterator[Reader]:
    """A run directory taken to go on with: its checkpoints, and the rows of metrics.jsonl."""
    from jaxres.logs.rows import keep_rows
    from jaxres.training.rundir import RunDirectory

    _save(scratch)
    valid = trees.read(scratch)
    valid["config.yaml"] = b"data: {}\n"
    valid["summary.json"] = b"{}"
    valid["metrics.jsonl"] = json.dumps(ROW).encode() + b"\n"
    outer = ("config.yaml", "summary.json", "metrics.jsonl", "checkpoints/5/config/metadata")

    @st.composite
    def made(draw: st.DrawFn) -> Tree:
        tree = dict(draw(damaged_tree(valid, lambda name: name in outer)))
        if draw(st.booleans()):
            tree["metrics.jsonl"] = draw(_rows())
        for name in draw(st.lists(st.sampled_from(STRAYS), max_size=2)):
            tree[f"checkpoints/{name}"] = draw(st.sampled_from((b"", trees.Folder())))
        return tree

    def read(source: Path, output: Path) -> list[Any]:
        with RunDirectory(source, Config()) as directory:
            latest = directory.checkpoints.latest() or 0
            keep_rows(source / "metrics.jsonl", latest)
            steps = directory.checkpoints.steps()
        kept = source / "metrics.jsonl"
        return [steps, kept.read_text().splitlines() if kept.exists() else []]

    def wrong(tree: Tree, content: list[Any]) -> str | None:
        for line in content[1]:
            row = json.loads(line)
            if row.get("split") == "test" or not row["step"] <= 5:
                return f"kept the row {line}"
        return None

    yield Reader(made(), read, wrong)


STRAYS = ("7", "x", "-1", "9" * 30, "0", "3.orbax-checkpoint-tmp", "٣", "1e3", " 4", "checkpoint_4")
