import contextlib
import errno
import multiprocessing
import os
import threading
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxres.config import Split
from jaxres.data import prepare
from jaxres.data.compose import render_host
from jaxres.data.composed import Batch, open_split
from jaxres.data.feed import Feed
from jaxres.data.pipeline import TrainBatch, TrainBatches, eval_batches, train_batches
from jaxres.runtime.errors import InputError, TrainingFailed
from tests.marked import slow


def same(ours: Batch, theirs: Batch) -> bool:
    leaves = [(ours["label"], theirs["label"])]
    if "image" in ours:
        leaves.append((ours["image"], theirs["image"]))
    else:
        leaves += list(zip(ours["plan"], theirs["plan"], strict=True))
    return all(np.array_equal(one, other) for one, other in leaves)


@pytest.mark.parametrize("render", ["device", "host"])
def test_a_restored_iterator_goes_on_with_the_exact_next_plan(tiny_config, render: str) -> None:
    config = tiny_config("--data.render", render, "--data.placement=random")
    dataset = open_split(config, "train")
    straight = list(train_batches(dataset, config))
    assert len(straight) == 20
    for stop in (0, 7, 13):  # within an epoch, and within the next
        first = train_batches(dataset, config)
        for _ in range(stop):
            next(first)
        second = train_batches(dataset, config)
        second.set_state(first.get_state())
        rest = list(second)
        assert len(rest) == 20 - stop
        assert all(same(*pair) for pair in zip(rest, straight[stop:], strict=True))


def test_worker_processes_give_the_same_batches_and_restore(tiny_config) -> None:
    plain = tiny_config("--data.render=host")
    config = tiny_config("--data.render=host", "--data.workers=2")
    dataset = open_split(config, "train")
    straight = list(train_batches(dataset, plain))
    batches = train_batches(dataset, config)
    batches.set_state({"next_step": 9})
    there = set(os.listdir("/dev/shm"))
    rest = list(batches)
    held = jax.tree.map(jnp.asarray, rest)  # JAX reads from where the worker put it
    batches.close()
    assert set(os.listdir("/dev/shm")) <= there
    assert len(rest) == len(held) == 11
    assert all(same(*pair) for pair in zip(rest, straight[9:], strict=True))


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_split_the_same_global_batch(tiny_config, processes: int) -> None:
    config = tiny_config()
    dataset = open_split(config, "train")
    whole = TrainBatch(dataset, 32)
    for step in (0, 9, 10, 19):
        parts = [TrainBatch(dataset, 32, index, processes)(step) for index in range(processes)]
        joined = {
            "label": np.concatenate([part["label"] for part in parts]),
            "plan": [
                np.concatenate(fields) for fields in zip(*(p["plan"] for p in parts), strict=True)
            ],
        }
        assert same(whole(step), joined)


def test_an_epoch_shows_every_example_at_most_once_and_epochs_differ(tiny_config) -> None:
    config = tiny_config()
    batches = list(train_batches(open_split(config, "train"), config))
    for epoch in (batches[:10], batches[10:]):
        shown = np.concatenate([batch["plan"].digit for batch in epoch])
        assert len(set(shown)) == len(shown) == 320
    assert not same(batches[0], batches[10])


def test_both_renderers_get_the_same_plan(tiny_config) -> None:
    flags = ["--data.placement=random", "--data.digit-side-range", "8", "32"]
    config, hosted = tiny_config(*flags), tiny_config(*flags, "--data.render=host")
    dataset = open_split(config, "train")
    device = train_batches(dataset, config)
    host = train_batches(open_split(hosted, "train"), hosted)
    for ours, theirs in zip(device, host, strict=True):
        np.testing.assert_array_equal(ours["label"], theirs["label"])
        rendered = render_host.render(ours["plan"], None, dataset.resident, data=dataset.data)
        np.testing.assert_array_equal(rendered, theirs["image"])


@pytest.mark.parametrize("batch_size", [1, 7, 50, 64])
def test_evaluation_shows_every_example_once(tiny_config, batch_size: int) -> None:
    dataset = open_split(tiny_config(), "test")
    shown = []
    with eval_batches(dataset, batch_size) as batches:
        for batch, real in batches:
            assert len(batch["label"]) == batch_size
            shown += batch["plan"].digit[:real].tolist()
    assert shown == list(range(50))


def test_evaluation_plans_do_not_depend_on_the_batch_size(tiny_config) -> None:
    dataset = open_split(tiny_config("--data.placement=random"), "test")

    def corners(batch_size: int) -> np.ndarray:
        with eval_batches(dataset, batch_size) as batches:
            return np.concatenate([b["plan"].corner[:real] for b, real in batches])

    np.testing.assert_array_equal(corners(7), corners(64))


@pytest.mark.parametrize("workers", [0, slow(2)])
def test_an_evaluation_is_rendered_ahead_of_its_reader(tiny_config, workers: int) -> None:
    flags = ["--data.render=host", "--data.placement=random"]
    direct = open_split(tiny_config(*flags), "test")
    dataset = open_split(tiny_config(*flags, f"--data.workers={workers}"), "test")
    before = {process.pid for process in multiprocessing.active_children()}
    with eval_batches(dataset, 10) as batches:
        batch, real = next(batches)
        threads = [each for each in threading.enumerate() if each.name.startswith("grain")]
        assert workers or threads
        rest, started = [], set()
        for following, _ in batches:  # by now each worker has given one
            rest.append(following)
            started |= {process.pid for process in multiprocessing.active_children()} - before
        assert len(started) == workers
    assert real == 10
    ours = np.concatenate([each["image"] for each in (batch, *rest)])
    theirs = direct.batch(np.arange(50, dtype=np.int32), epoch=0, first=0)["image"]
    np.testing.assert_array_equal(ours, theirs)
    assert not {process.pid for process in multiprocessing.active_children()} & started


def test_shared_memory_that_is_too_small_is_said_before_the_workers_start(
    tiny_config, monkeypatch: pytest.MonkeyPatch
) -> None:
    def statvfs(folder: str) -> SimpleNamespace:
        assert folder == "/dev/shm"
        return SimpleNamespace(f_bavail=2, f_frsize=1 << 20)

    monkeypatch.setattr(os, "statvfs", statvfs)
    flags = ["--data.render=host", "--data.batch-size=320"]
    config = tiny_config(*flags, "--data.workers=2")
    dataset = open_split(config, "train")
    with pytest.raises(
        InputError,
        match=r"workers is 2, .* need 5 MiB of shared memory; /dev/shm has 2 free.*--shm-size",
    ):
        train_batches(dataset, config)
    train_batches(dataset, tiny_config(*flags, "--data.workers=0")).close()


def test_shared_memory_that_runs_out_is_said(tiny_config, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config("--data.render=host", "--data.workers=1")
    batches = train_batches(open_split(config, "train"), config)
    with contextlib.closing(batches._batches):
        batches._batches = Full()
        with pytest.raises(TrainingFailed, match=r"no shared memory is left; .*data\.workers 0"):
            next(batches)


class Full:
    """Grain's iterator where a worker met a full disk."""

    def __next__(self) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_splits_share_no_digit_and_no_photograph(tiny_config) -> None:
    splits = [open_split(tiny_config(), name) for name in ("train", "validation", "test")]
    dataset = [{image.tobytes() for image in split.source.images} for split in splits]
    photos = [{photo.tobytes() for photo in split.resident.photos} for split in splits]
    for sets in (dataset, photos):
        assert not sets[0] & sets[1]
        assert not sets[0] & sets[2]
        assert not sets[1] & sets[2]


def test_a_batch_larger_than_the_split_is_refused(tiny_config) -> None:
    config = tiny_config("--data.batch-size=321")
    with pytest.raises(InputError, match=r"data.batch_size is 321 .* allowed: 1 to 320"):
        train_batches(open_split(config, "train"), config)


def test_more_steps_than_the_devices_count_are_refused(tiny_config) -> None:
    config = tiny_config("--train.epochs=5000000000")
    with pytest.raises(
        InputError, match=r"train.epochs is 5000000000; allowed here: 1 to 214748364"
    ):
        train_batches(open_split(config, "train"), config)


def test_a_range_of_sides_is_drawn_from(tiny_config) -> None:
    config = tiny_config("--data.digit-side-range", "10", "14")
    sides = next(train_batches(open_split(config, "train"), config))["plan"].side
    assert set(sides) == {10, 11, 12, 13, 14}


def test_the_feed_keeps_order_and_stacks_steps(tiny_config) -> None:
    config = tiny_config()
    dataset = open_split(config, "train")
    straight = list(train_batches(dataset, config))
    put = []

    def note(batch: Batch, steps: int) -> Batch:
        put.append(steps)
        return batch

    feed = Feed(TrainBatches(TrainBatch(dataset, 32), total_steps=20), [1, 4, 1, 4], note, depth=2)
    taken = []
    for count, (batch, steps) in enumerate(feed, 1):
        taken.append(steps)
        feed.fill()
        assert len(put) == min(count + 2, 4)  # two ahead
        first = sum(taken[:-1])
        labels = batch["label"] if steps > 1 else batch["label"][None]
        for k in range(steps):
            np.testing.assert_array_equal(labels[k], straight[first + k]["label"])
    assert taken == [1, 4, 1, 4]


@pytest.mark.parametrize("render", ["device", "host"])
def test_plain_images_need_no_backgrounds(tiny_config, tmp_path, render: str) -> None:
    flags = ["--data.composition=plain", "--data.backgrounds=photos", "--data.render", render]
    config = tiny_config(*flags, f"--data.data-dir={tmp_path}")
    dataset = open_split(config, "train")
    assert len(dataset.resident.photos) == 0
    batches = list(train_batches(dataset, config))
    assert len(batches) == 20
    again = train_batches(dataset, config)
    again.set_state({"next_step": 13})
    assert all(same(*pair) for pair in zip(again, batches[13:], strict=True))
    if render == "host":
        assert batches[0]["image"].shape == (32, 32, 32, 3)
    else:
        shown = np.concatenate([batch["plan"].image for batch in batches[:10]])
        assert sorted(shown) == list(range(320))


def test_colours_are_for_plain_images_only(tiny_config, cifar_dir, tmp_path) -> None:
    prepare.prepare("cifar10", from_dir=cifar_dir, data_dir=tmp_path, progress=False)
    flags = ["--data.dataset=cifar10", f"--data.data-dir={tmp_path}", "--data.batch-size=10"]
    flags += ["--data.validation-examples=30"]
    with pytest.raises(
        InputError, match=r"composition is scale_blend.*\.dataset cifar10 .* allowed: plain"
    ):
        open_split(tiny_config(*flags), "train")
    dataset = open_split(tiny_config(*flags, "--data.composition=plain"), "test")
    with eval_batches(dataset, 10) as batches:
        images = [dataset.source.images, *(b["plan"].image for b, _ in batches)]
    assert images[0].shape == (20, 32, 32, 3)
    assert np.concatenate(images[1:]).tolist() == list(range(20))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_all_seeds_are_tested_on_the_same_images(tiny_config, split: Split) -> None:
    changes = [(), ("--train.seed=5",), ("--data.eval-seed=5",)]
    ours, theirs, others = (
        open_split(tiny_config("--data.placement=random", *change), split).batch(
            np.arange(20, dtype=np.int32), epoch=0, first=0
        )
        for change in changes
    )
    assert same(ours, theirs)
    assert not same(ours, others)


def test_training_images_are_drawn_by_the_seed_of_training(tiny_config) -> None:
    changes = [(), ("--data.eval-seed=5",), ("--train.seed=5",)]
    ours, theirs, others = (
        next(train_batches(open_split(config, "train"), config))
        for config in (tiny_config("--data.placement=random", *change) for change in changes)
    )
    assert same(ours, theirs)
    assert not same(ours, others)
