"""What `data prepare --layout` writes, and any TFDS dataset, read as a dataset of a run."""

import bz2
import gzip
import io
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxres.data import prepare, writing
from jaxres.data.composed import open_split
from jaxres.data.datasets import registry
from jaxres.data.datasets.dataset import png
from jaxres.data.own import tfds_dataset
from jaxres.data.readers import decoding
from jaxres.runtime.errors import InputError
from tests.data.conftest import write_photo
from tests.data.own.conftest import Settings
from tests.data.own.forms import CLASSES


def prepared(root: Path, **options: Any) -> Path:
    """The dataset `pets` in `data` beside the folder."""
    options = {"layout": "image-folder", "progress": False} | options
    return prepare.prepare("pets", from_dir=root, data_dir=root.parent / "data", **options)


def opened(folder: Path) -> Any:
    """The dataset as TFDS opens it."""
    return tfds.builder_from_directory(str(folder))


def leftovers(data_dir: Path) -> list[Path]:
    return [each for each in data_dir.iterdir() if each.name.startswith(prepare.STAGING_PREFIX)]


def test_the_prepared_folder_gives_the_images_of_the_folder(image_folder: Path, settings: Settings):
    prepared(image_folder)
    for split in ("train", "validation", "test"):
        ours = open_split(settings("pets"), split)
        folders = open_split(settings(f"folder:{image_folder}"), split)
        assert ours.class_names == folders.class_names
        np.testing.assert_array_equal(ours.source.labels, folders.source.labels)
        np.testing.assert_array_equal(ours.resident.images, folders.resident.images)


def test_tfds_opens_it(image_folder: Path):
    builder = opened(prepared(image_folder))
    source = builder.as_data_source()["train"]
    assert builder.info.supervised_keys == ("image", "label")
    assert builder.info.metadata == {"layout": "image-folder", "short_side": None, "quality": 90}
    first = source[0]
    assert first["file_name"] == b"cat/0.jpg"
    original = decoding.read_image(image_folder / "cat" / "0.jpg")
    assert np.abs(first["image"].astype(int) - original).max() <= 1
    assert len(source) == sum(CLASSES.values())


def test_it_is_listed(image_folder: Path):
    folder = prepared(image_folder)
    (row,) = (row for row in registry.describe(image_folder.parent / "data") if row.name == "pets")
    assert row == (
        "pets",
        "a dataset of your own of 3 classes",
        True,
        str(folder),
        {"train": 37},
        None,
        None,
    )
    (folder / "features.json").write_text("{}")
    (row,) = (row for row in registry.describe(image_folder.parent / "data") if row.name == "pets")
    assert not row.ready
    assert row.problem


def test_larger_images_are_shrunk(image_folder: Path, settings: Settings):
    write_photo(image_folder / "cat" / "small.png", 3, height=32, width=40)
    folder = prepared(image_folder, short_side=40, quality=80)
    source = opened(folder).as_data_source()["train"]
    shapes = {example["file_name"].decode(): example["image"].shape for example in source}
    assert shapes.pop("cat/small.png") == (32, 40, 3)
    assert set(shapes.values()) == {(40, 58, 3)}
    with pytest.raises(InputError, match="with short_side 40, asked for 48: pass --overwrite"):
        prepared(image_folder, short_side=48)


def test_archives_are_unpacked(image_folder: Path):
    whole = [*map(str, sorted(image_folder.rglob("*.*")))]
    (image_folder.parent / "packed").mkdir()
    with tarfile.open(image_folder.parent / "cat.tar", "w") as inner:
        inner.add(image_folder / "cat", arcname=".")
    with tarfile.open(image_folder.parent / "packed" / "train.tar.gz", "w:gz") as outer:
        outer.add(image_folder.parent / "cat.tar", arcname="cat.tar")
        outer.add(image_folder / "dog", arcname="dog")
    with zipfile.ZipFile(image_folder.parent / "packed" / "val.zip", "w") as packed:
        for name in ("cat", "dog"):
            packed.write(image_folder / name / "1.png", f"{name}/other.png")
    folder = prepared(image_folder.parent / "packed")
    info = opened(folder).info
    assert info.splits["train"].num_examples == CLASSES["cat"] + CLASSES["dog"]
    assert info.splits["validation"].num_examples == 2
    assert info.features["label"].names == ["cat", "dog"]
    assert leftovers(image_folder.parent / "data") == []
    assert [*map(str, sorted(image_folder.rglob("*.*")))] == whole


def zip_of(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr(zipfile.ZipInfo(name), b"x")
    return file.getvalue()


def tar_of(name: str, pack: Callable[[bytes], bytes] = bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as packed:
        member = tarfile.TarInfo(name)
        member.size = 1 << 16
        packed.addfile(member, io.BytesIO(np.random.default_rng(0).bytes(member.size)))
    return pack(file.getvalue())


def broken(packed: bytes) -> bytes:
    """With some bytes in the middle turned over."""
    middle = len(packed) // 2
    turned = bytes(255 - byte for byte in packed[middle : middle + 99])
    return packed[:middle] + turned + packed[middle + 99 :]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        # Python 3.11 looks at a name's last character.
        ("yak.zip", zip_of("name").replace(b"name", bytes(4))),
        ("yak.zip", zip_of("a" * 999)),
        ("yak.tar", tar_of("a" * 999)),
        ("yak.tar", tar_of("a/" * 3000 + "a")),
        ("yak.tar.gz", broken(tar_of("a", gzip.compress))),
        ("yak.tar.bz2", broken(tar_of("a", bz2.compress))),
        ("yak.tar.xz", broken(tar_of("a", lzma.compress))),
    ],
)
def test_an_archive_with_a_fault_is_named(image_folder: Path, name: str, content: bytes) -> None:
    (image_folder / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name} cannot be unpacked: ."):
        prepared(image_folder)
    assert not (image_folder.parent / "data").exists()


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_that_is_none(image_folder: Path, kind: str):
    (image_folder / f"yak.{kind}").write_bytes(b"PK\5\6" if kind == "zip" else b"yak" * 999)
    with pytest.raises(InputError, match=rf"yak\.{kind} cannot be unpacked"):
        prepared(image_folder)
    assert not (image_folder.parent / "data").exists()


def test_an_archive_that_would_fill_the_disk(image_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("jaxres.data.own.unpacking.MOST_ANYWAY", 1000)
    (image_folder / "zeros").write_bytes(bytes(1 << 20))
    with tarfile.open(image_folder / "yak.tgz", "w:gz") as packed:
        packed.add(image_folder / "zeros", arcname="a.png")
    with pytest.raises(InputError, match=r"yak.tgz unpacks to more than"):
        prepared(image_folder)


def test_bad_images_are_named_together_or_left_out(image_folder: Path, damage, settings: Settings):
    damage(image_folder / "cat" / "0.jpg", "cut")
    damage(image_folder / "owl" / "5.png", "cut")
    (image_folder / "dog" / "a.heic").write_bytes(b"heic")
    reason = r"a.heic is of a kind .*cat/0.jpg is not .*owl/5.png is not .*the 3, or .*--skip-bad"
    with pytest.raises(InputError, match=reason):
        prepared(image_folder)
    assert not (image_folder.parent / "data").exists()
    prepared(image_folder, skip_bad=True)
    parts = [len(open_split(settings("pets"), s)) for s in ("train", "validation", "test")]
    assert sum(parts) == sum(CLASSES.values()) - 2


def test_multi_label_rows_are_prepared(image_folder: Path, settings: Settings):
    table = image_folder.parent / "labels.csv"
    files = sorted(image_folder.rglob("*.*"))
    table.write_text(
        "file,cat,large\n"
        + "".join(
            f"{file.relative_to(table.parent)},{int(file.parent.name == 'cat')},{place % 2}\n"
            for place, file in enumerate(files)
        )
    )
    prepared(table, layout="csv")
    ours, rows = (open_split(settings(name), "train") for name in ("pets", f"csv:{table}"))
    assert ours.class_names == ("cat", "large")
    assert ours.multi_label
    np.testing.assert_array_equal(ours.source.labels, rows.source.labels)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"layout": "folder"}, "layout 'folder'"),
        ({"short_side": 8}, "short_side is 8; allowed: 32 pixels or more"),
        ({"quality": 0}, "quality is 0; allowed: 1 to 100"),
    ],
)
def test_what_cannot_be_asked(image_folder: Path, options: dict[str, Any], reason: str):
    with pytest.raises(InputError, match=reason):
        prepared(image_folder, **options)


@pytest.mark.parametrize(("name", "reason"), [("Pets!", "small letters"), ("mnist", "another")])
def test_names_that_cannot_be(image_folder: Path, name: str, reason: str):
    with pytest.raises(InputError, match=reason):
        prepare.prepare(
            name, from_dir=image_folder, data_dir=image_folder.parent / "d", layout="image-folder"
        )


# In the training split, and in the test split after it.
@pytest.mark.parametrize(("at", "most"), [(30, 37 + 14 - 1), (40, 14)])
def test_an_interrupted_preparation_continues(image_folder: Path, at: int, most: int):
    (root := image_folder.parent / "split").mkdir()
    shutil.copytree(image_folder / "cat", root / "test" / "cat")
    image_folder.rename(root / "train")
    whole = prepared(root)
    data_dir = root.parent / "again"
    program = """
import sys, pathlib, signal
from jaxres.data import prepare, writing
from jaxres.data.own import layouts
writing.SHARD_BYTES = 20_000
real, done = layouts.stored, []
def stored(*given):
    done.append(given)
    if len(done) == int(sys.argv[3]):
        raise KeyboardInterrupt
    return real(*given)
layouts.stored = stored
prepare.prepare("pets", from_dir=pathlib.Path(sys.argv[1]), data_dir=pathlib.Path(sys.argv[2]),
                layout="image-folder", progress=False)
"""
    words = [sys.executable, "-c", program, str(root), str(data_dir), str(at)]
    stopped = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "the same command continues" in stopped.stderr
    (stage,) = leftovers(data_dir)
    assert list(stage.rglob("*.json"))
    made: list[Path] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "SHARD_BYTES", 20_000)
        real = prepare.layouts.stored
        patch.setattr(
            prepare.layouts, "stored", lambda *given: (made.append(given[1]), real(*given))[1]
        )
        folder = prepare.prepare(
            "pets", from_dir=root, data_dir=data_dir, layout="image-folder", progress=False
        )
    assert 0 < len(made) <= most
    for split in ("train", "test"):
        first, second = (
            [example["image"].tobytes() for example in opened(each).as_data_source()[split]]
            for each in (whole, folder)
        )
        assert first == second
    assert leftovers(data_dir) == []


def test_other_images_are_not_continued(image_folder: Path):
    stage = image_folder.parent / "data" / f"{prepare.STAGING_PREFIX}pets"
    (stage / "parts" / "train").mkdir(parents=True)
    (stage / "items").write_text("of others")
    (stage / "parts" / "train" / "0.json").write_text('{"items": 30}')
    (stage / "parts" / "train" / "0.part").write_bytes(b"")
    prepared(image_folder)
    assert leftovers(image_folder.parent / "data") == []


def test_two_at_once_are_refused(image_folder: Path):
    stage = image_folder.parent / "data" / f"{prepare.STAGING_PREFIX}pets"
    stage.mkdir(parents=True)
    with prepare.lock(stage / "lock"), pytest.raises(InputError, match="another process is"):
        prepared(image_folder)


def write(data_dir: Path, features: dict[str, Any], examples: list[dict[str, Any]]) -> Path:
    """A TFDS dataset `other`, written by TFDS."""

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "other"
        VERSION = tfds.core.Version("2.1.0")
        url_infos = None

        def _info(self) -> tfds.core.DatasetInfo:
            described = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=described, disable_shuffling=True)

        def _split_generators(self, dl_manager: Any) -> Any:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Any:
            for key, example in enumerate(examples):
                content = {"image": io.BytesIO(example["image"])} if "image" in example else {}
                yield key, example | content

    builder = Builder(data_dir=str(data_dir), file_format="array_record")
    builder.download_and_prepare()
    return data_dir / "other" / "2.1.0"


def digits(count: int = 40) -> list[dict[str, Any]]:
    return [
        {"image": png(np.full((28, 28), place, np.uint8)), "label": place % 4}
        for place in range(count)
    ]


def test_any_tfds_dataset(tmp_path: Path, settings: Settings):
    features = {
        "image": tfds.features.Image(shape=(28, 28, 1)),
        "label": tfds.features.ClassLabel(num_classes=4),
    }
    write(tmp_path / "data", features, digits())
    for name in ("other", "tfds:other", "tfds:other:2.1.0"):
        dataset = open_split(settings(name, "--data.train-split=train[:75%]"), "train")
        assert dataset.class_names == ("0", "1", "2", "3")
        images = dataset.resident.images
        assert images.shape == (len(dataset), 28, 28)  # grey, as they are stored
        np.testing.assert_array_equal(images[:, 0, 0] % 4, dataset.source.labels)
    # Grey images can be laid over photographs.
    blended = settings("other", "--data.composition=scale_blend", "--data.validation-examples=4")
    open_split(blended, "train").batch(np.arange(8, dtype=np.int32), epoch=0, first=0)


@pytest.mark.parametrize(
    ("features", "reason"),
    [
        ({"image": tfds.features.Image()}, "one class label per example, but has none"),
        ({"label": tfds.features.ClassLabel(num_classes=4)}, "one image per example, but has none"),
        (
            {
                "image": tfds.features.Image(),
                "fine": tfds.features.ClassLabel(num_classes=4),
                "coarse": tfds.features.ClassLabel(num_classes=2),
            },
            r"but has several \(fine, coarse\)|but has several \(coarse, fine\)",
        ),
        (
            {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=1)},
            "has 1 classes; allowed: two or more",
        ),
    ],
)
def test_features_that_do_not_do(
    tmp_path: Path, settings: Settings, features: dict[str, Any], reason: str
):
    values = {"image": png(np.zeros((8, 8, 3), np.uint8)), "label": 0, "fine": 1, "coarse": 1}
    write(tmp_path / "data", features, [{name: values[name] for name in features}] * 3)
    with pytest.raises(InputError, match=reason):
        open_split(settings("tfds:other"), "train")


def test_labels_out_of_range(tmp_path: Path, settings: Settings):
    features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=4)}
    folder = write(tmp_path / "data", features, digits())
    (folder / "label.labels.txt").unlink(missing_ok=True)
    text = (folder / "features.json").read_text()
    (folder / "features.json").write_text(text.replace('"numClasses": "4"', '"numClasses": "3"'))
    with pytest.raises(InputError, match=r"labels of other are out of range, as 3 .*train_split"):
        open_split(settings("tfds:other"), "train")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("tfds:nothing", "no TFDS dataset 'nothing' in .*tfds build nothing --file_format"),
        ("tfds:other:9.9.9", r"'other' of version 9.9.9 in .* \(there: 2.1.0\)"),
        ("tfds:../other", "allowed: tfds:NAME"),
        ("nothing", "dataset 'nothing'.*folder:.*csv:.*tfds:.*prepared in"),
    ],
)
def test_datasets_that_are_not_there(tmp_path: Path, settings: Settings, name: str, reason: str):
    features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=4)}
    write(tmp_path / "data", features, digits())
    with pytest.raises(InputError, match=reason):
        open_split(settings(name), "train")


def test_another_file_format_is_told_how_to_be_converted(tmp_path: Path, settings: Settings):
    features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=4)}
    folder = write(tmp_path / "data", features, digits())
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(InputError, match=r"'tfrecord'; .*tfds convert_format .*=array_record"):
        open_split(settings("tfds:other"), "train")


def test_labels_of_large_sets_are_kept(
    image_folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    folder = prepared(image_folder)
    expected = open_split(settings("pets"), "train").source.labels
    monkeypatch.setattr(tfds_dataset, "LARGE", 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    read: list[object] = []
    real = tfds_dataset._read_labels
    monkeypatch.setattr(
        tfds_dataset, "_read_labels", lambda *given: (read.append(given), real(*given))[1]
    )
    for _ in range(2):
        np.testing.assert_array_equal(open_split(settings("pets"), "train").source.labels, expected)
    assert len(read) == 1
    (kept,) = (tmp_path / "cache" / "jaxres" / "labels").iterdir()
    kept.write_bytes(b"\x93NUMPY")
    open_split(settings("pets"), "train")
    os.utime(folder / "dataset_info.json")
    open_split(settings("pets"), "train")
    assert len(read) == 2


def test_a_damaged_shard_is_said(image_folder: Path, settings: Settings, damage):
    folder = prepared(image_folder)
    (shard,) = folder.glob("pets-train.array_record-*")
    content = bytearray(shard.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    shard.write_bytes(content)
    with pytest.raises(InputError, match=r"cannot be used .*prepare "):
        open_split(settings("pets"), "train")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_dataset(tmp_path: Path, tiny_flags: list[str]):
    noise = np.random.default_rng(0)
    for place in range(240):  # of 1.1 MB each
        path = tmp_path / "noise" / "ab"[place % 2] / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(noise.integers(0, 256, (600, 600, 3), dtype=np.uint8)))
    prepared(tmp_path / "noise")
    flags = ["--data.dataset=pets", f"--data.data-dir={tmp_path / 'data'}", "--data.render=host"]
    flags += ["--data.composition=plain", "--data.batch-size=8", "--train.epochs=1"]
    flags += ["--data.validation-examples=null", "--train.limit-train-examples=null"]
    program = """
import resource, sys
from jaxres.config import Config, recipe
from jaxres.data.composed import open_split
from jaxres.data.pipeline import train_batches
import tensorflow_datasets, grain
config = recipe.parse(Config, sys.argv[1:], prog="test")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
dataset = open_split(config, "train")
print(sum(len(batch["label"]) for batch in train_batches(dataset, config)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    words = [sys.executable, "-c", program, *tiny_flags, *flags]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    images, grown_kib = map(int, done.stdout.split())
    assert images == 192
    assert grown_kib < 120 << 10
