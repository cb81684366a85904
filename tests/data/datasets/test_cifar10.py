"""CIFAR-10: reading its pickles safely, preparing it whole or in part, loading it."""

import gzip
import hashlib
import io
import os
import pickle
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxres.cli.main import main
from jaxres.config import Split
from jaxres.data import prepare
from jaxres.data.composed import open_split
from jaxres.data.datasets import cifar10, registry
from jaxres.data.readers import tfds_records
from jaxres.evaluation import run as runs
from jaxres.runtime.errors import InputError
from jaxres.training import loop
from tests.data.conftest import CIFAR_BATCH, Served, cifar_bytes


def prepare_quietly(from_dir: Path | None, data_dir: Path, **options) -> tfds_records.Prepared:
    prepare.prepare("cifar10", from_dir=from_dir, data_dir=data_dir, progress=False, **options)
    return registry.open_prepared("cifar10", data_dir)


def load(split: Split, data_dir: Path, *, validation_examples: int = 30) -> registry.Source:
    return registry.load(
        "cifar10",
        split,
        data_dir=data_dir,
        validation_examples=validation_examples,
        split_seed=0,
        canvas=32,
    )


def publish(name: str, content: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a batch of this content in its place, as if it were the published one."""
    (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    monkeypatch.setitem(cifar10.BATCHES, name, hashlib.md5(content).hexdigest())


@pytest.fixture
def archive(cifar_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The synthetic batches in an archive, as published."""
    path = tmp_path / "downloaded" / cifar10.ARCHIVE
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as file:
        file.addfile(directory(cifar10.FOLDER))
        for name in ("batches.meta", *cifar10.BATCHES):
            packed = cifar_dir / f"{name}.gz"
            content = gzip.decompress(packed.read_bytes()) if packed.is_file() else b"names"
            member = tarfile.TarInfo(f"{cifar10.FOLDER}/{name}")
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    publish_archive(path, monkeypatch)
    return path


def directory(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = tarfile.DIRTYPE
    return member


def publish_archive(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "ARCHIVE_MD5", hashlib.md5(path.read_bytes()).hexdigest())


@pytest.mark.parametrize("layout", ["gzipped", "plain", "folder", "archive", "archive in folder"])
def test_every_layout_gives_the_same_batches(cifar_dir: Path, archive: Path, layout: str):
    expected = cifar10.read(cifar_dir, partial=False)
    given = {"archive": archive, "archive in folder": archive.parent}.get(layout, cifar_dir)
    if layout in ("plain", "folder"):
        inner = cifar_dir / cifar10.FOLDER if layout == "folder" else cifar_dir
        inner.mkdir(exist_ok=True)
        for path in list(cifar_dir.glob("*.gz")):
            (inner / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
            path.unlink()
    found = cifar10.read(given, partial=False)
    assert list(found) == list(expected) == [*cifar10.TRAIN, cifar10.TEST]
    for name, (images, labels) in found.items():
        np.testing.assert_array_equal(images, expected[name].images)
        assert labels == expected[name].labels


def test_a_row_holds_red_then_green_then_blue(cifar_dir: Path, monkeypatch: pytest.MonkeyPatch):
    row = np.arange(3072) % 1024 // 32 + np.repeat([0, 100, 200], 1024)
    content = cifar_bytes(row.astype(np.uint8)[None], [7])
    publish("data_batch_3", content, cifar_dir, monkeypatch)
    images, labels = cifar10.read(cifar_dir, partial=False)["data_batch_3"]
    assert images.shape == (1, 32, 32, 3)
    assert images[0, 5, 0].tolist() == images[0, 5, 31].tolist() == [5, 105, 205]
    assert labels == [7]


def test_tfds_opens_the_prepared_set_as_its_own(cifar_dir: Path, tmp_path: Path):
    prepared = prepare_quietly(cifar_dir, tmp_path / "data")
    assert prepared.folder == tmp_path / "data" / "cifar10" / "3.0.2"
    assert prepared.metadata == {}
    batches = cifar10.read(cifar_dir, partial=False)
    for split, names in (("train", cifar10.TRAIN), ("test", [cifar10.TEST])):
        examples: Any = tfds.data_source("cifar10", split=split, data_dir=tmp_path / "data")
        images = np.concatenate([batches[name].images for name in names])
        assert [example["id"].decode() for example in examples] == [
            f"{split}_{index:05d}" for index in range(len(images))
        ]
        np.testing.assert_array_equal([example["image"] for example in examples], images)
        assert [example["label"] for example in examples] == [
            label for name in names for label in batches[name].labels
        ]


def test_the_source_is_rgb(cifar_dir: Path, tmp_path: Path):
    prepare_quietly(cifar_dir, tmp_path)
    train, validation, test = (load(split, tmp_path) for split in registry.SPLITS)
    batch = cifar10.read(cifar_dir, partial=False)[cifar10.TEST]
    np.testing.assert_array_equal(test.images, batch.images)
    assert test.labels.tolist() == batch.labels
    assert train.class_names[0] == "airplane"
    assert train.class_names[9] == "truck"
    shown = {image.tobytes() for part in (train, validation) for image in part.images}
    assert len(shown) == len(train.labels) + 30 == 5 * CIFAR_BATCH


def test_an_incomplete_set_is_refused_by_name(cifar_dir: Path, tmp_path: Path):
    (cifar_dir / "data_batch_2.gz").unlink()
    (cifar_dir / "data_batch_5.gz").unlink()
    with pytest.raises(
        InputError, match=rf"no data_batch_2, data_batch_5 of CIFAR-10 in {cifar_dir}.*--partial"
    ):
        prepare_quietly(cifar_dir, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_partial_set_says_so(cifar_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    data_dir = tmp_path / "data"
    second = (cifar_dir / "data_batch_2.gz").rename(tmp_path / "data_batch_2.gz")
    words = ["data", "prepare", "cifar10", "--from", str(cifar_dir), "--data-dir", str(data_dir)]
    assert main([*words, "--partial"]) == 0
    prepared = registry.open_prepared("cifar10", data_dir)
    assert prepared.partial == "without data_batch_2"
    assert prepared.examples == {"train": 4 * CIFAR_BATCH, "test": CIFAR_BATCH}
    (row,) = [row for row in registry.describe(data_dir) if row.name == "cifar10"]
    assert (row.ready, row.partial) == (True, "without data_batch_2")
    capfd.readouterr()
    assert main(["data", "list", "--data-dir", str(data_dir)]) == 0
    assert "cifar10 is partial: without data_batch_2" in capfd.readouterr().out

    with pytest.raises(InputError, match=r"but partial \(without data_batch_2\): pass --overwrite"):
        prepare_quietly(cifar_dir, data_dir)
    assert prepare_quietly(cifar_dir, data_dir, partial=True).partial
    second.rename(cifar_dir / "data_batch_2.gz")
    whole = prepare_quietly(cifar_dir, data_dir, partial=True, overwrite=True)
    assert whole.partial is None
    assert whole.examples["train"] == 5 * CIFAR_BATCH


@pytest.mark.slow
def test_a_run_tells_of_its_data(
    cifar_dir: Path, tmp_path: Path, tiny_config, capfd: pytest.CaptureFixture[str]
):
    (cifar_dir / "data_batch_2.gz").unlink()
    prepare_quietly(cifar_dir, tmp_path, partial=True)
    flags = ["--data.dataset=cifar10", "--data.composition=plain", f"--data.data-dir={tmp_path}"]
    flags += ["--data.validation-examples=30", "--train.epochs=1", "--train.devices=1"]
    config = tiny_config(*flags)
    told = loop.train(config, tmp_path / "run")["data"]
    assert "cifar10 is partial: without data_batch_2\n" in capfd.readouterr().err
    assert told["partial"] == "without data_batch_2"
    for split in registry.SPLITS:
        opened = open_split(config, split)
        shown = opened.source.labels.tobytes() + np.asarray(opened.source.images).tobytes()
        assert told[split] == {"examples": len(opened), "checksum": f"{zlib.crc32(shown):08x}"}


@pytest.mark.slow
def test_a_run_does_not_go_on_with_other_data_unless_it_is_meant(
    cifar_dir: Path, tmp_path: Path, tiny_config, capfd: pytest.CaptureFixture[str]
):
    second = cifar_dir / "data_batch_2.gz"
    second.rename(tmp_path / "aside")
    prepare_quietly(cifar_dir, tmp_path, partial=True)
    flags = ["--data.dataset=cifar10", "--data.composition=plain", f"--data.data-dir={tmp_path}"]
    flags += ["--data.validation-examples=30", "--train.epochs=1", "--train.devices=1"]
    config = tiny_config(*flags, "--train.limit-train-examples=null")
    loop.train(config, tmp_path / "run")
    (tmp_path / "aside").rename(second)
    prepare_quietly(cifar_dir, tmp_path, overwrite=True)
    before = {path: path.read_bytes() for path in tmp_path.glob("run/*.*")}
    refused = r"at step 1: train has 70 examples \(checksum \w+\), had 50 .*; validation has 30 "
    with pytest.raises(InputError, match=refused) as error:
        loop.train(config, tmp_path / "run")
    assert "test has" not in str(error.value)  # its data are the same
    assert before == {path: path.read_bytes() for path in tmp_path.glob("run/*.*")}
    capfd.readouterr()
    runs.evaluate(tmp_path / "run")
    assert "note:" not in capfd.readouterr().err
    runs.evaluate(tmp_path / "run", split="train")
    told = capfd.readouterr().err
    assert "note: the train data of cifar10 here, 70 examples" in told
    assert "are not those of the run, 50 examples" in told
    loop.train(config, tmp_path / "run", other_data=True)


@pytest.mark.parametrize("kept", [[cifar10.TEST], ["data_batch_1", "data_batch_4"], []])
def test_what_even_a_partial_set_needs(cifar_dir: Path, tmp_path: Path, kept: list[str]):
    for name in set(cifar10.BATCHES) - set(kept):
        (cifar_dir / f"{name}.gz").unlink()
    with pytest.raises(InputError, match=r"no .*_batch.* of CIFAR-10 in .*: add them$"):
        prepare_quietly(cifar_dir, tmp_path / "data", partial=True)


def test_partial_is_for_sets_that_can_be(tmp_path: Path):
    with pytest.raises(InputError, match="--partial is given for mnist; allowed for: cifar10"):
        prepare.prepare("mnist", from_dir=tmp_path, data_dir=tmp_path, partial=True)


def test_a_damaged_batch(cifar_dir: Path, damage: Callable[[Path, str], None]):
    damage(cifar_dir / "data_batch_4.gz", "cut")
    with pytest.raises(InputError, match=r"data_batch_4\.gz is truncated or damaged"):
        cifar10.read(cifar_dir, partial=True)


def test_a_changed_archive(archive: Path, damage: Callable[[Path, str], None]):
    damage(archive, "one bit")
    with pytest.raises(
        InputError, match=rf"{archive} is not the published file: md5 \w+, expected"
    ):
        cifar10.read(archive, partial=False)


def test_a_cut_archive(
    archive: Path, damage: Callable[[Path, str], None], monkeypatch: pytest.MonkeyPatch
):
    damage(archive, "cut")
    publish_archive(archive, monkeypatch)
    with pytest.raises(InputError, match=rf"{archive} is (truncated or damaged|not a whole tar)"):
        cifar10.read(archive, partial=False)


def test_an_archive_of_other_batches(archive: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(cifar10.BATCHES, "data_batch_2", "0" * 32)
    with pytest.raises(InputError, match=r"cifar-10-batches-py/data_batch_2 in .*tar.gz is not"):
        cifar10.read(archive, partial=True)


class Malicious:
    """Runs a command where it is unpickled."""

    def __init__(self, command: str):
        self._command = command

    def __reduce__(self):
        return os.system, (self._command,)


@pytest.mark.parametrize("checksum_matches", [False, True])
def test_a_malicious_batch_runs_nothing(
    cifar_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checksum_matches: bool
):
    command = f"touch {tmp_path / 'harmed'}"
    content = pickle.dumps({b"data": Malicious(command), b"labels": [0]}, protocol=3)
    if checksum_matches:
        publish("data_batch_1", content, cifar_dir, monkeypatch)
        expected = r"names \w+\.system; allowed: arrays only"
    else:
        (cifar_dir / "data_batch_1.gz").write_bytes(gzip.compress(content))
        expected = r"data_batch_1\.gz is not the published file: md5 \w+, expected"
        monkeypatch.setattr(cifar10, "_unpickle", pytest.fail)
    with pytest.raises(InputError, match=expected):
        cifar10.read(cifar_dir, partial=False)
    assert not (tmp_path / "harmed").exists()


def test_download(archive: Path, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with served(archive.parent) as address:
        monkeypatch.setattr(cifar10, "ARCHIVE_URL", f"{address}{cifar10.ARCHIVE}")
        prepared = prepare_quietly(None, tmp_path / "data")
    assert prepared.examples == {"train": 5 * CIFAR_BATCH, "test": CIFAR_BATCH}


def test_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cifar10, "ARCHIVE_URL", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(InputError, match=r"could not be downloaded .* prepare cifar10 --from DIR"):
        prepare_quietly(None, tmp_path / "data")


def test_real_cifar10(original: Callable[[str], Path], prepared: Callable[[str], Path]):
    there = {path.name.partition(".")[0] for path in original("cifar10").iterdir()}
    data_dir = prepared("cifar10")
    train_count = 10_000 * len(there & set(cifar10.TRAIN))
    train, validation, test = (
        load(split, data_dir, validation_examples=1_000) for split in registry.SPLITS
    )
    assert len(train.labels) == train_count - 1_000
    assert len(validation.labels) == 1_000
    assert test.labels[:5].tolist() == [3, 8, 8, 0, 6]
    assert np.bincount(test.labels).tolist() == [1_000] * 10
    # The well-known means of the channels, of all 50,000 training images.
    mean = np.asarray(train.images).mean((0, 1, 2)) / 255
    np.testing.assert_allclose(mean, [0.4914, 0.4822, 0.4465], atol=5e-3)
    if train_count == 10_000:
        with pytest.raises(InputError, match="is 10000; allowed for cifar10: 1 to 9999"):
            load("train", data_dir, validation_examples=10_000)
