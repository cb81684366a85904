import shutil
from pathlib import Path

import numpy as np
import pytest

from jaxres.config import Split
from jaxres.data.composed import open_split
from jaxres.data.own import image_folder as reading
from jaxres.runtime.errors import InputError
from tests.data.conftest import pixels, write_photo
from tests.data.own.conftest import Settings
from tests.data.own.forms import CLASSES

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def test_classes_are_folders_and_splits_are_apart(image_folder: Path, settings: Settings):
    config = settings(f"folder:{image_folder}")
    sources = {split: open_split(config, split).source for split in SPLITS}
    assert {split: len(each.labels) for split, each in sources.items()} == {
        "train": 27,
        "validation": 4,
        "test": 6,
    }
    assert all(each.class_names == tuple(CLASSES) for each in sources.values())
    shown = [pixels(each) for each in sources.values()]
    assert len(set.union(*shown)) == sum(map(len, shown)) == sum(CLASSES.values())
    labels = np.concatenate([each.labels for each in sources.values()])
    assert np.bincount(labels).tolist() == list(CLASSES.values())


def test_folders_of_splits_decide(image_folder: Path, settings: Settings, tmp_path: Path):
    root = tmp_path / "split" / "unpacked"
    shutil.copytree(image_folder, root / "train")
    for place, name in enumerate(CLASSES):
        write_photo(root / "val" / name / "deeper" / "a.png", 500 + place)
    config = settings(f"folder:{root.parent}")
    assert len(open_split(config, "test").source.labels) == 3
    assert len(open_split(config, "validation").source.labels) == 4  # of the training images
    for place, name in enumerate(CLASSES):
        write_photo(root / "test" / name / "b.png", 600 + place)
    lengths = {split: len(open_split(config, split).source.labels) for split in SPLITS}
    assert lengths == {"train": 37, "validation": 3, "test": 3}


def test_a_linked_folder_is_a_class(image_folder: Path, settings: Settings, tmp_path: Path):
    (image_folder / "owl").rename(tmp_path / "elsewhere")
    (image_folder / "owl").symlink_to(tmp_path / "elsewhere")
    assert open_split(settings(f"folder:{image_folder}"), "train").class_names == tuple(CLASSES)


def test_the_renderers_show_the_same_images(image_folder: Path, settings: Settings):
    host, device = (
        open_split(settings(f"folder:{image_folder}", f"--data.render={where}"), "test")
        for where in ("host", "device")
    )
    numbers = np.arange(len(host), dtype=np.int32)
    images = host.batch(numbers, epoch=0, first=0)["image"]
    np.testing.assert_array_equal(images, np.asarray(device.resident.images))
    assert host.fingerprint == device.fingerprint


def test_another_file_is_other_data(image_folder: Path, settings: Settings):
    config = settings(f"folder:{image_folder}")
    before = {split: open_split(config, split).fingerprint for split in SPLITS}
    write_photo(image_folder / "cat" / "0.jpg", 999, width=80)
    assert {split: open_split(config, split).fingerprint for split in SPLITS} != before


def test_slices_choose_the_splits(image_folder: Path, settings: Settings):
    def lengths(*flags: str) -> list[int]:
        config = settings(f"folder:{image_folder}", *flags)
        return [len(open_split(config, split).source.labels) for split in SPLITS]

    test, validation = "--data.test-split=train[30:]", "--data.validation-split=train[20:25]"
    assert lengths(test, validation, "--data.train-split=train[:50%]") == [18, 5, 7]
    assert lengths(test, validation) == [25, 5, 7]  # what is in neither
    assert lengths(test) == [27, 3, 7]
    assert lengths(validation) == [27, 5, 5]


@pytest.mark.parametrize(
    ("flag", "reason"),
    [
        (
            "--data.train-split=train --data.test-split=train[10:]",
            "train_split and data.test_split share 2. examples",
        ),
        ("--data.test-split=held_out", r"is 'held_out', which .* has not; allowed: train \(37\)"),
        ("--data.train-split=train[:", "data.train_split is 'train\\[:'"),
        ("--data.train-split=train[90:]", "data.train_split is"),
        ("--data.test-split=train[5:5]", "the test split of .* is empty"),
        ("--data.validation-examples=40", "allowed for .*: 1 to 30"),
    ],
)
def test_splits_that_cannot_be(image_folder: Path, settings: Settings, flag: str, reason: str):
    with pytest.raises(InputError, match=reason):
        open_split(settings(f"folder:{image_folder}", *flag.split(" ")), "test")


def test_splits_of_published_data_are_fixed(settings: Settings):
    with pytest.raises(InputError, match="test_split is given, but the splits of digits are fixed"):
        open_split(settings("digits", "--data.test-split=train"), "train")


def one_class(root: Path) -> None:
    shutil.rmtree(root / "dog")
    shutil.rmtree(root / "owl")


def empty_class(root: Path) -> None:
    (root / "yak").mkdir()


def no_class(root: Path) -> None:
    write_photo(root / "here.png", 1)


def other_class_in_val(root: Path) -> None:
    for name in CLASSES:
        (root / "train").mkdir(exist_ok=True)
        (root / name).rename(root / "train" / name)
    write_photo(root / "val" / "yak" / "a.png", 1)


def beside_the_splits(root: Path) -> None:
    (root / "train").mkdir()
    (root / "cat").rename(root / "train" / "cat")


def no_images(root: Path) -> None:
    shutil.rmtree(root)
    root.mkdir()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (one_class, "has one class, 'cat'; allowed: two or more"),
        (empty_class, "has no images in yak: fill or remove them"),
        (no_class, "here.png is in no folder of a class; allowed: .*CLASS/IMAGE"),
        (other_class_in_val, "has no training images of yak, but images for validation"),
        (beside_the_splits, "is outside the folders train, val and test"),
        (no_images, "no images in"),
        (shutil.rmtree, "does not exist"),
    ],
)
def test_what_is_no_image_folder(image_folder: Path, settings: Settings, change, reason: str):
    change(image_folder)
    with pytest.raises(InputError, match=reason):
        open_split(settings(f"folder:{image_folder}"), "train")


def test_a_damaged_image_is_named_when_it_is_read(image_folder: Path, settings: Settings, damage):
    for file in image_folder.rglob("*.*"):
        damage(file, "cut")
    dataset = open_split(settings(f"folder:{image_folder}", "--data.render=host"), "train")
    with pytest.raises(InputError, match=r"pets/\w+/\d+\.\w+ is not a whole image"):
        dataset.batch(np.arange(8, dtype=np.int32), epoch=0, first=0)


@pytest.mark.parametrize("target", ["nowhere", "3.jpg", "/dev/zero"])
def test_a_link_to_no_file_is_named(image_folder: Path, settings: Settings, target: str):
    root = image_folder.with_name("split")
    for split in ("train", "test"):  # in both, where copies are looked for
        shutil.copytree(image_folder, root / split)
        (root / split / "cat" / "3.jpg").unlink(missing_ok=True)
        (root / split / "cat" / "3.jpg").symlink_to(target)
    with pytest.raises(InputError, match=r"cannot read .*/cat/3\.jpg: "):
        _ = [open_split(settings(f"folder:{root}"), split).fingerprint for split in SPLITS]


def test_copies_in_two_splits_are_told(
    image_folder: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
):
    root = image_folder.with_name("split")
    shutil.copytree(image_folder, root / "train")
    for name in CLASSES:
        write_photo(root / "test" / name / "a.png", ord(name[0]))
    shutil.copy(root / "train" / "dog" / "3.JPEG", root / "test" / "owl" / "3.jpeg")
    open_split(settings(f"folder:{root}"), "train")
    assert "warning: 1 images of" in (said := capsys.readouterr().err)
    assert "dog/3.JPEG" in said
    assert "owl/3.jpeg" in said


def test_too_much_for_a_device_is_refused(
    image_folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("jaxres.data.composed.MOST_ON_DEVICE", 1000)
    open_split(settings(f"folder:{image_folder}", "--data.render=host"), "train")
    with pytest.raises(InputError, match=r"data\.render is device, .* allowed: .* or host"):
        open_split(settings(f"folder:{image_folder}"), "train")


def test_files_of_other_kinds_are_noted(
    image_folder: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
):
    (image_folder / "cat" / "a.gif").write_bytes(b"GIF89a")
    open_split(settings(f"folder:{image_folder}"), "train")
    assert "note: 1 files are of a kind that is not read" in capsys.readouterr().err


def test_classes_and_paths_are_sorted(image_folder: Path):
    labelled = reading.find(image_folder)
    (members,) = labelled.splits.values()
    assert labelled.class_names == tuple(sorted(CLASSES))
    assert members == sorted(members)
