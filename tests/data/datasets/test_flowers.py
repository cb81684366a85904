"""Flowers: reading the five folders, preparing them whole or in part, splitting, loading."""

import gzip
import hashlib
import shutil
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxres.config import Split
from jaxres.data import prepare
from jaxres.data.compose import render_device
from jaxres.data.composed import open_split
from jaxres.data.datasets import flowers, registry
from jaxres.data.pipeline import train_batches
from jaxres.data.readers import archives, decoding, tfds_records
from jaxres.data.readers.encoded import middle
from jaxres.evaluation.evaluator import resident_of
from jaxres.runtime.errors import InputError
from tests.data.conftest import FLOWERS, Served, pixels, write_photo


def prepare_quietly(from_dir: Path | None, data_dir: Path, **options) -> tfds_records.Prepared:
    prepare.prepare("flowers", from_dir=from_dir, data_dir=data_dir, progress=False, **options)
    return registry.open_prepared("flowers", data_dir)


def load(
    split: Split, data_dir: Path, *, validation_examples: int = 6, split_seed: int = 0
) -> registry.Source:
    return registry.load(
        "flowers",
        split,
        data_dir=data_dir,
        validation_examples=validation_examples,
        split_seed=split_seed,
        canvas=32,
    )


@pytest.fixture
def archive(flowers_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The synthetic photographs in an archive, as published."""
    path = tmp_path / "downloaded" / flowers.ARCHIVE
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as file:
        file.add(flowers_dir, arcname=flowers.FOLDER)
    monkeypatch.setattr(flowers, "ARCHIVE_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


@pytest.mark.parametrize("layout", ["folders", "folder", "archive", "archive in folder"])
def test_every_layout_gives_the_same_images(
    flowers_dir: Path, archive: Path, tmp_path: Path, layout: str
):
    expected = flowers.read(flowers_dir)
    given = {"archive": archive, "archive in folder": archive.parent}.get(layout, flowers_dir)
    if layout == "folder":
        given = tmp_path / "unpacked"
        shutil.copytree(flowers_dir, given / flowers.FOLDER)
    found = flowers.read(given)
    assert {name: len(files) for name, files in found.items()} == FLOWERS
    assert list(found) == list(FLOWERS)
    for name, files in found.items():
        assert list(files.items()) == list(expected[name].items())


def test_tfds_opens_the_prepared_set_and_the_bytes_are_the_originals(
    flowers_dir: Path, tmp_path: Path
):
    (flowers_dir / "roses" / "._0_n.jpg").write_bytes(b"what a Mac leaves beside an image")
    (flowers_dir / "LICENSE.txt").write_text("not an image")
    prepared = prepare_quietly(flowers_dir, tmp_path / "data")
    assert prepared.examples == {"train": sum(FLOWERS.values())}
    assert prepared.partial is None
    files = [path for name in FLOWERS for path in sorted((flowers_dir / name).glob("[!.]*.jpg"))]
    for path, example in zip(files, prepared.read("train"), strict=True):
        assert example["image"] == path.read_bytes()
        assert list(FLOWERS)[example["label"]] == path.parent.name
    builder: Any = tfds.builder_from_directory(prepared.folder)
    examples = builder.as_data_source("train")
    assert len(examples) == len(files)
    assert examples[3]["image"].shape == decoding.read_image(files[3]).shape


def test_a_tenth_of_each_class_is_always_for_test(flowers_dir: Path, tmp_path: Path):
    prepare_quietly(flowers_dir, tmp_path)
    test, again = (load("test", tmp_path, split_seed=seed) for seed in (0, 5))
    np.testing.assert_array_equal(np.asarray(test.images), np.asarray(again.images))
    # 12, 9, 10, 11 and 8 images: a tenth, rounded up
    assert np.bincount(test.labels).tolist() == [2, 1, 1, 2, 1]
    train, validation = (load(split, tmp_path) for split in ("train", "validation"))
    assert len(validation.labels) == 6
    assert len(train.labels) == 50 - 7 - 6
    assert len(pixels(train) | pixels(validation) | pixels(test)) == 50
    assert pixels(validation) != pixels(load("validation", tmp_path, split_seed=5))


def test_images_are_squares_of_the_canvas_with_their_labels(flowers_dir: Path, tmp_path: Path):
    prepare_quietly(flowers_dir, tmp_path)
    expected = {
        middle(decoding.read_image(path), 32).tobytes(): path.parent.name
        for path in flowers_dir.rglob("*.jpg")
    }
    assert len(set(load("train", tmp_path).first(20).labels)) == 5  # not filed by class
    for split in registry.SPLITS:
        source = load(split, tmp_path)
        assert source.class_names == tuple(FLOWERS)
        for image, label in zip(np.asarray(source.images), source.labels, strict=True):
            assert expected[image.tobytes()] == source.class_names[label]


@pytest.mark.parametrize("validation_examples", [0, 43, 10_000])
def test_impossible_validation_examples(
    flowers_dir: Path, tmp_path: Path, validation_examples: int
):
    prepare_quietly(flowers_dir, tmp_path)
    with pytest.raises(InputError, match=f"is {validation_examples}; allowed for flowers: 1 to 42"):
        load("train", tmp_path, validation_examples=validation_examples)


def test_both_renderers_show_the_same_images(tiny_config, flowers_dir: Path, tmp_path: Path):
    prepare_quietly(flowers_dir, tmp_path)
    flags = ["--data.dataset=flowers", "--data.composition=plain", f"--data.data-dir={tmp_path}"]
    flags += ["--data.validation-examples=6", "--data.batch-size=8", "--train.epochs=1"]
    config, hosted = tiny_config(*flags), tiny_config(*flags, "--data.render=host")
    dataset = open_split(config, "train")
    resident = resident_of(dataset)
    assert resident is not None
    host = train_batches(open_split(hosted, "train"), hosted)
    for ours, theirs in zip(train_batches(dataset, config), host, strict=True):
        np.testing.assert_array_equal(ours["label"], theirs["label"])
        rendered = render_device.render(ours["plan"], None, resident, data=config.data)
        np.testing.assert_array_equal(rendered, theirs["image"])


def test_other_counts_than_published_are_refused_or_said(flowers_dir: Path, tmp_path: Path):
    (flowers_dir / "daisy" / "3_n.jpg").unlink()
    write_photo(flowers_dir / "roses" / "extra.jpg", 999)
    with pytest.raises(
        InputError, match=rf"{flowers_dir} lacks .* \(8 of 9 daisy, 9 of 8 roses\): .* --partial"
    ):
        prepare_quietly(flowers_dir, tmp_path / "data")
    assert not (tmp_path / "data").exists()
    prepared = prepare_quietly(flowers_dir, tmp_path / "data", partial=True)
    assert prepared.partial == "8 of 9 daisy, 9 of 8 roses"
    (row,) = [row for row in registry.describe(tmp_path / "data") if row.name == "flowers"]
    assert (row.ready, row.partial) == (True, prepared.partial)
    with pytest.raises(InputError, match=r"but partial \(8 of 9 daisy, .*: pass --overwrite"):
        prepare_quietly(flowers_dir, tmp_path / "data")


@pytest.mark.parametrize("partial", [False, True])
def test_classes_without_images_are_refused(flowers_dir: Path, tmp_path: Path, partial: bool):
    shutil.rmtree(flowers_dir / "tulips")
    for path in (flowers_dir / "daisy").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=rf"{flowers_dir} has no images of daisy, tulips: looked"):
        prepare_quietly(flowers_dir, tmp_path / "data", partial=partial)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images of dandelion, daisy, tulips, sunflowers, ros"):
        prepare_quietly(tmp_path / "empty", tmp_path / "data", partial=partial)


@pytest.mark.parametrize("how", ["empty", "cut"])
def test_a_damaged_photograph_is_refused(
    flowers_dir: Path, tmp_path: Path, damage: Callable[[Path, str], None], how: str
):
    damage(flowers_dir / "roses" / "2_n.jpg", how)
    with pytest.raises(InputError, match=r"roses/2_n\.jpg is not a whole image"):
        prepare_quietly(flowers_dir, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_damaged_archive_is_refused(
    archive: Path, tmp_path: Path, damage: Callable[[Path, str], None]
):
    damage(archive, "cut")
    with pytest.raises(InputError, match=rf"{archive} is (truncated or damaged|not a whole tar)"):
        prepare_quietly(archive, tmp_path / "data")
    archive.write_bytes(b"no archive at all" * 100)
    with pytest.raises(InputError, match=rf"{archive} is not a whole tar archive"):
        prepare_quietly(archive, tmp_path / "data")


def test_another_archive_is_refused_unless_taken_as_it_is(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(flowers, "ARCHIVE_SHA256", "0" * 64)
    with pytest.raises(InputError, match=r"lacks published images .*the archive's sha256 is "):
        prepare_quietly(archive.parent, tmp_path / "data")
    prepared = prepare_quietly(archive, tmp_path / "data", partial=True)
    assert "the archive's sha256 is" in str(prepared.partial)


def test_an_archive_that_unpacks_to_more_than_fits_is_refused(
    archive: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(archives, "MAX_ARCHIVE_BYTES", 5_000)
    with pytest.raises(InputError, match=rf"{archive} unpacks to more than 5000 bytes"):
        flowers.read(archive)


def test_headers_of_an_archive_take_no_more_memory_than_its_content_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(archives, "MAX_ARCHIVE_BYTES", 1 << 20)
    long_name = tarfile.TarInfo("name")
    long_name.type, long_name.size = tarfile.GNUTYPE_LONGNAME, 64 << 20
    content = gzip.compress(long_name.tobuf(tarfile.GNU_FORMAT) + bytes(64 << 20), 1)
    (tmp_path / "flowers.tgz").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"flowers.tgz unpacks to more than 1048576 bytes"):
        flowers.read(tmp_path / "flowers.tgz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_a_sparse_file_in_an_archive_is_refused(tmp_path: Path):
    sparse = tarfile.TarInfo("roses/1.jpg")
    sparse.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(sparse.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"%011o\0" % (1 << 30)  # its size with holes
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "flowers.tar").write_bytes(bytes(header) + bytes(1024))
    with pytest.raises(InputError, match=r"flowers.tar has a sparse file, 'roses/1.jpg'"):
        flowers.read(tmp_path / "flowers.tar")


def test_download(archive: Path, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with served(archive.parent) as address:
        monkeypatch.setattr(flowers, "ARCHIVE_URL", f"{address}{flowers.ARCHIVE}")
        prepared = prepare_quietly(None, tmp_path / "data")
    assert prepared.examples == {"train": sum(FLOWERS.values())}


def test_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(flowers, "ARCHIVE_URL", "http://127.0.0.1:9/flower_photos.tgz")
    with pytest.raises(InputError, match=r"could not be downloaded .* prepare flowers --from DIR"):
        prepare_quietly(None, tmp_path / "data")


def test_real_flowers(prepared: Callable[[str], Path]):
    data_dir = prepared("flowers")
    found = registry.open_prepared("flowers", data_dir)
    assert (found.examples, found.partial) == ({"train": 3670}, None)
    train, validation, test = (
        load(split, data_dir, validation_examples=300) for split in registry.SPLITS
    )
    assert (len(train.labels), len(validation.labels), len(test.labels)) == (3001, 300, 369)
    # A tenth of 898, 633, 799, 699 and 641, rounded up.
    assert np.bincount(test.labels).tolist() == [90, 64, 80, 70, 65]
    images = np.asarray(test.images)
    assert images.shape == (369, 32, 32, 3)
    assert 0.2 < images.mean() / 255 < 0.6
