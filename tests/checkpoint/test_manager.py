import json
import os
import pathlib
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxres.checkpoint import checksum
from jaxres.checkpoint.manager import Checkpoints
from jaxres.checkpoint.progress import Progress
from jaxres.checkpoint.reader import CheckpointReader
from jaxres.checkpoint.shapes import abstract_like
from jaxres.config import CheckpointConfig
from jaxres.distributed.mesh import make_mesh, replicate
from jaxres.runtime.errors import InputError

STATE = {
    "step": jnp.int32(3),
    "params": {"conv": {"kernel": jnp.arange(12.0).reshape(3, 4)}},
    "stats": {"norm": {"mean": jnp.ones(4)}},
    "opt_state": ({"count": jnp.int32(3)}, (jnp.zeros((3, 4)),)),
}
EMA = {
    "params": {"conv": {"kernel": jnp.full((3, 4), 7.0)}},
    "stats": {"norm": {"mean": jnp.zeros(4)}},
}
PROGRESS = {"best": None, "iterator": {"next_step": 3}, "history": []}


def save(checkpoints: Checkpoints, step: int, accuracy: float | None = None, loss: float = 1.0):
    checkpoints.save(step, STATE, progress=PROGRESS, config={"a": {"b": 1}})
    checkpoints.wait()
    if accuracy is not None:
        row = {"step": step, "epoch": step / 10, "accuracy": accuracy, "loss": loss}
        checkpoints.add_evaluation(step, row)


def abstract(tree):
    return abstract_like(tree, NamedSharding(make_mesh(4), P()))


def test_state_progress_and_config_come_back(tmp_path: pathlib.Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", CheckpointConfig())
    save(checkpoints, 3)
    restored = checkpoints.restore(3, abstract(STATE))
    chex.assert_trees_all_equal(restored, STATE)
    assert jax.tree.leaves(restored)[0].sharding.mesh.size == 4
    assert checkpoints.read(3, "progress") == PROGRESS
    assert checkpoints.read(3, "config") == {"a": {"b": 1}}
    checkpoints.close()


def test_evaluation_reads_the_moving_average_where_there_is_one(tmp_path: pathlib.Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", CheckpointConfig())
    weights = {key: STATE[key] for key in ("params", "stats")}
    save(checkpoints, 3)
    checkpoints.save(4, {**STATE, "ema": EMA}, progress=PROGRESS, config={})
    checkpoints.wait()
    for step, expected in ((3, weights), (4, EMA)):
        restored = checkpoints.restore_weights(step, abstract(weights))
        chex.assert_trees_all_equal(restored, expected)
    checkpoints.close()


def test_the_newest_and_the_best_are_kept_and_found(tmp_path: pathlib.Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", CheckpointConfig(keep_last=2, keep_best=1))
    save(checkpoints, 1, accuracy=0.5)
    save(checkpoints, 2, accuracy=0.9, loss=0.4)
    save(checkpoints, 3, accuracy=0.9, loss=0.3)
    for step in (4, 5, 6):
        save(checkpoints, step)
    checkpoints.close()
    reader = CheckpointReader(tmp_path / "checkpoints")
    assert reader.steps() == [3, 5, 6]
    assert reader.find("last") == 6
    assert reader.find("5") == 5
    with pytest.raises(InputError, match=r"no checkpoint '4'.*allowed: best, last, 3, 5, 6"):
        reader.find("4")
    reader.close()


def test_an_evaluation_is_part_of_its_checkpoint(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder, CheckpointConfig(keep_last=2))
    progress = Progress(iterator={"next_step": 3})
    checkpoints.save(3, STATE, progress=progress.to_json(), config={})
    checkpoints.wait()
    assert not checkpoints.read_progress(3).has_evaluated(3)
    row = {"step": 3, "epoch": 0.3, "accuracy": 0.5, "loss": 1.0, "seconds": 2.0}
    checkpoints.add_evaluation(3, row)
    read = checkpoints.read_progress(3)
    assert read.history == [row]
    assert read.has_evaluated(3)
    assert checkpoints.find("best") == 3
    metrics = folder / "3" / "metrics" / "metrics"
    metrics.write_text(metrics.read_text().replace("0.5", "0.6"))
    with pytest.raises(InputError, match=r"3' is damaged \(its metrics are \{'step': 3"):
        checkpoints.read_progress(3)
    checkpoints.close()


def test_an_unfinished_checkpoint_is_never_taken_for_a_whole_one(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "checkpoints"
    writer = Checkpoints(folder, CheckpointConfig())
    save(writer, 3)
    writer.close()
    # What a process killed while saving leaves behind.
    unfinished = folder / "9.orbax-checkpoint-tmp"
    (unfinished / "variables").mkdir(parents=True)
    assert CheckpointReader(folder).steps() == [3]
    writer = Checkpoints(folder, CheckpointConfig())
    assert writer.latest() == 3
    save(writer, 9)
    writer.close()
    assert sorted(path.name for path in folder.iterdir()) == ["3", "9"]


def test_what_a_failed_save_leaves_late_goes_with_the_next_one(tmp_path: pathlib.Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", CheckpointConfig())
    late = checkpoints.folder / "2.orbax-checkpoint-tmp" / "variables"
    late.mkdir(parents=True)  # as a thread that still wrote when the save had failed
    save(checkpoints, 3)
    assert [path.name for path in checkpoints.folder.iterdir()] == ["3"]
    checkpoints.close()


def test_saving_does_not_see_later_changes_of_donated_buffers(tmp_path: pathlib.Path) -> None:
    from jaxres.distributed import strategy

    parallel = strategy.Jit(make_mesh(1))
    grow = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)
    mine = jax.tree.map(jnp.copy, {**STATE, "params": {"w": jnp.zeros((512, 512))}})
    state = replicate(parallel.mesh, mine)
    checkpoints = Checkpoints(tmp_path / "checkpoints", CheckpointConfig(keep_last=9))
    for step in range(5):
        checkpoints.save(step, parallel.leave(state), progress=PROGRESS, config={})
        state = grow(state)
    checkpoints.wait()
    for step in range(5):
        weights = {"params": {"w": jnp.zeros((512, 512))}, "stats": STATE["stats"]}
        restored = checkpoints.restore_weights(step, abstract(weights))
        assert (restored["params"]["w"] == step).all()
    checkpoints.close()


def test_a_checksum_is_the_same_on_the_host_and_on_a_device() -> None:
    tree = {
        "a": jax.random.normal(jax.random.key(0), (31, 33)),
        "b": jnp.int32(-5),
        "c": jnp.arange(7, dtype=jnp.bfloat16),
        "d": jnp.zeros((0, 3)),
    }
    leaves = jax.tree.leaves(tree)
    assert checksum.of_arrays(tree) == int(checksum._of_device_arrays(leaves)) > 0
    with jax.enable_x64():
        leaves = [jnp.asarray([1.5, 2.0]), jnp.arange(3, dtype=jnp.int64) - 1]
        assert leaves[0].dtype == jnp.float64
        assert checksum.of_arrays(leaves) == int(checksum._of_device_arrays(leaves)) > 0


@pytest.mark.parametrize("dtype", ["float64", "int64", "float32", "bfloat16", "int8", "bool"])
def test_a_checksum_tells_one_from_two(dtype: str) -> None:
    sums = {checksum.of_arrays([np.full(2, value, jnp.dtype(dtype))]) for value in (0, 1)}
    twos = {checksum.of_arrays([np.full(2, value, jnp.dtype(dtype))]) for value in (1, 2)}
    assert len(sums) == 2
    assert len(twos) == (1 if dtype == "bool" else 2)


def test_a_checksum_changes_with_any_bit_and_not_with_the_devices() -> None:
    tree = {"a": np.arange(1000, dtype=np.float32), "b": np.int32(5)}
    one = checksum.of_arrays(tree)
    spread = jax.device_put(tree["a"], NamedSharding(make_mesh(4), P("data")))
    assert checksum.of_arrays({**tree, "a": spread}) == one
    words = tree["a"].view(np.uint32)
    for place, bit in ((0, 0), (500, 31), (999, 7)):
        words[place] ^= np.uint32(1 << bit)
        assert checksum.of_arrays(tree) != one
        words[place] ^= np.uint32(1 << bit)
    assert checksum.of_arrays(tree) == one
    swapped = {**tree, "a": tree["a"][::-1].copy()}
    assert checksum.of_arrays(swapped) != one
    assert checksum.of_json({"a": 1, "b": [0.1]}) == checksum.of_json({"b": [0.1], "a": 1})
    assert checksum.of_json({"a": 1}) != checksum.of_json({"a": 2})


def rewrite(folder: pathlib.Path, step: int, item: str, text: str) -> None:
    """Another JSON item, with the checksum that it ought to have."""
    step_folder = folder / str(step)
    (step_folder / item / "metadata").write_text(text)
    sums = json.loads((step_folder / "checksums" / "metadata").read_text())
    sums[item] = checksum.of_json(json.loads(text))
    (step_folder / "checksums" / "metadata").write_text(json.dumps(sums))


@pytest.fixture
def written(tmp_path: pathlib.Path) -> pathlib.Path:
    """The folder of a checkpoint of step 3."""
    writer = Checkpoints(tmp_path / "checkpoints", CheckpointConfig())
    save(writer, 3, accuracy=0.5)
    writer.close()
    return tmp_path / "checkpoints"


@pytest.mark.parametrize(
    "text",
    ["[]", "null", '{"data": 3}', '{"train": {}}', '{"data": {}}', '{"data": {"mean": [1]}}'],
)
def test_settings_that_are_none_are_refused(written: pathlib.Path, text: str) -> None:
    rewrite(written, 3, "config", text)
    reader = CheckpointReader(written)
    with pytest.raises(InputError, match=r"3' is damaged \(its .*; there is no other checkpoint"):
        reader.read_config(3)
    reader.close()


@pytest.mark.parametrize("text", ["[]", "{}", '{"best": 3}', '{"best": {"step": "3"}}'])
def test_progress_that_is_none_is_refused(written: pathlib.Path, text: str) -> None:
    rewrite(written, 3, "progress", text)
    reader = CheckpointReader(written)
    with pytest.raises(InputError, match=r"3' is damaged \("):
        reader.find("best")
    reader.close()


def test_weights_out_of_proportion_to_their_files_are_not_allocated(
    tmp_path: pathlib.Path,
) -> None:
    writer = Checkpoints(tmp_path / "checkpoints", CheckpointConfig())
    params = {"a": np.zeros((5000, 4000), np.float32)}  # all zero: 80 MB in a few kB
    writer.save(3, {**STATE, "params": params}, progress=PROGRESS, config={})
    writer.close()
    reader = CheckpointReader(tmp_path / "checkpoints")
    with pytest.raises(
        InputError, match=r"3' is damaged \(its weights need 80000016 bytes, it has"
    ):
        reader.read_weights(3, NamedSharding(make_mesh(1), P()))
    reader.close()


def test_pipes_and_damaged_metrics_are_said_when_a_run_is_opened(written: pathlib.Path) -> None:
    metrics = written / "3" / "metrics" / "metrics"
    metrics.write_text("no numbers")
    with pytest.raises(InputError, match=r"checkpoints' cannot be opened \(Expecting value"):
        Checkpoints(written, CheckpointConfig())
    metrics.unlink()
    os.mkfifo(metrics)
    for opened in (CheckpointReader, partial(Checkpoints, config=CheckpointConfig())):
        with pytest.raises(InputError, match=r"metrics' is not a regular file"):
            opened(written)


def test_a_step_of_any_number_of_digits_is_a_name(written: pathlib.Path) -> None:
    reader = CheckpointReader(written)
    with pytest.raises(InputError, match="no checkpoint '9999"):
        reader.find("9" * 5000)
    reader.close()
