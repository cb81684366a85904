import dataclasses
import errno
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import chex
import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums
from tensorflow_datasets.core.units import Size

from jaxres.data import prepare, writing
from jaxres.data.datasets import mnist, registry
from jaxres.data.datasets.dataset import Content, Split, png
from jaxres.data.readers import decoding, idx
from jaxres.runtime.errors import InputError
from tests.data.conftest import SYNTHETIC_TEST, SYNTHETIC_TRAIN, Served, write_photo


def prepare_quietly(name: str, from_dir: Path | None, data_dir: Path, **options) -> Path:
    return prepare.prepare(name, from_dir=from_dir, data_dir=data_dir, progress=False, **options)


def open_with_tfds(folder: Path) -> Any:
    return tfds.builder_from_directory(folder)


def originals_of(folder: Path) -> dict[str, np.ndarray]:
    files = mnist.PUBLISHED["mnist"].files
    return {key: idx.read_idx(idx.find_idx(folder, file.name)) for key, file in files.items()}


def leftovers(data_dir: Path) -> list[str]:
    return sorted(path.name for path in data_dir.iterdir()) if data_dir.exists() else []


def test_tfds_opens_prepared_digits(digits_dir: Path, tmp_path: Path):
    folder = prepare_quietly("mnist", digits_dir, tmp_path / "data")
    assert folder == tmp_path / "data" / "mnist" / "3.0.1"
    builder = open_with_tfds(folder)
    assert builder.info.splits["train"].num_examples == SYNTHETIC_TRAIN
    assert builder.info.splits["test"].num_examples == SYNTHETIC_TEST
    assert builder.info.features["image"].shape == (28, 28, 1)
    assert builder.info.features["label"].names == [str(digit) for digit in range(10)]
    arrays = originals_of(digits_dir)
    for split in ("train", "test"):
        for index, example in enumerate(builder.as_data_source(split)):
            assert example["label"] == arrays[f"{split}_labels"][index]
            np.testing.assert_array_equal(
                example["image"][..., 0], arrays[f"{split}_images"][index]
            )
    assert leftovers(tmp_path / "data") == ["mnist"]


def test_tfds_finds_prepared_mnist_by_name(synthetic_data_dir: Path):
    source = tfds.data_source("mnist", split="test", data_dir=synthetic_data_dir)
    assert len(source) == SYNTHETIC_TEST


@pytest.mark.slow
def test_real_mnist(original: Callable[[str], Path], prepared: Callable[[str], Path]):
    builder = open_with_tfds(prepared("mnist") / "mnist" / "3.0.1")
    arrays = originals_of(original("mnist"))
    for split, count in (("train", 60_000), ("test", 10_000)):
        source = builder.as_data_source(split)
        assert len(source) == count
        first = source.__getitems__(range(100))
        labels = [example["label"] for example in first]
        assert labels == arrays[f"{split}_labels"][:100].tolist()
        mean = np.mean([example["image"] for example in first])
        assert mean == arrays[f"{split}_images"][:100].mean()


def test_real_photos(original: Callable[[str], Path], prepared: Callable[[str], Path]):
    builder = open_with_tfds(prepared("photos") / "photos" / "1.0.0")
    sizes = {name: split.num_examples for name, split in builder.info.splits.items()}
    assert sizes == {"train": 200, "validation": 100, "test": 200}
    example = builder.as_data_source("validation")[0]
    assert min(example["image"].shape[:2]) == 256
    photo = decoding.read_image(original("scenes") / example["file_name"].decode())
    np.testing.assert_array_equal(example["image"], photo)


def test_nothing_is_printed_on_standard_output(
    digits_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    prepare_quietly("mnist", digits_dir, tmp_path / "quiet")
    assert capfd.readouterr() == ("", "")
    prepare.prepare("mnist", from_dir=digits_dir, data_dir=tmp_path / "lines")
    output, errors = capfd.readouterr()
    assert output == ""
    assert "mnist train: 100 of 200\n" in errors


def test_a_terminal_gets_a_bar(
    digits_dir: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    prepare.prepare("mnist", from_dir=digits_dir, data_dir=tmp_path / "data")
    output, errors = capfd.readouterr()
    assert output == ""
    assert "mnist train" in errors
    assert "100%" in errors


def test_a_prepared_set_is_left_as_it_is(
    digits_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    folder = prepare_quietly("mnist", digits_dir, tmp_path)
    before = (folder / "dataset_info.json").stat()
    again = prepare.prepare("mnist", from_dir=digits_dir, data_dir=tmp_path)
    assert again == folder
    assert "already prepared" in capfd.readouterr().err
    assert (folder / "dataset_info.json").stat() == before
    prepare_quietly("mnist", digits_dir, tmp_path, overwrite=True)
    assert (folder / "dataset_info.json").stat() != before
    assert "originals" in leftovers(tmp_path)
    assert not [name for name in leftovers(tmp_path) if name.startswith(prepare.STAGING_PREFIX)]


def test_a_failed_overwrite_keeps_the_old_set(synthetic_data_dir: Path, tmp_path: Path):
    write_photo(tmp_path / "new" / "train" / "a.png", 50)
    write_photo(tmp_path / "new" / "val" / "b.png", 51)
    write_photo(tmp_path / "new" / "test" / "c.jpg", 52).write_text("no picture")
    with pytest.raises(InputError, match=r"c\.jpg is not a whole image"):
        prepare_quietly("photos", tmp_path / "new", synthetic_data_dir, overwrite=True)
    assert registry.open_prepared("photos", synthetic_data_dir).examples["train"] == 4
    assert leftovers(synthetic_data_dir) == ["mnist", "photos"]


def test_an_overwrite_that_fails_at_the_last_rename_puts_the_old_set_back(
    synthetic_data_dir: Path, photos_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if target == registry.PREPARABLE["photos"].folder(
            synthetic_data_dir
        ) and "replaced" not in str(self):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(KeyboardInterrupt):
        prepare_quietly("photos", photos_dir, synthetic_data_dir, overwrite=True)
    assert registry.open_prepared("photos", synthetic_data_dir).examples["train"] == 4
    assert leftovers(synthetic_data_dir) == ["mnist", "photos"]


def test_a_folder_that_is_not_there_is_refused_even_if_the_set_is_ready(synthetic_data_dir: Path):
    with pytest.raises(InputError, match="nowhere"):
        prepare_quietly("photos", synthetic_data_dir / "nowhere", synthetic_data_dir)


def test_another_photo_side_needs_overwrite(photos_dir: Path, tmp_path: Path):
    data_dir = tmp_path / "data"
    prepare_quietly("photos", photos_dir, data_dir, photo_side=40)
    with pytest.raises(InputError, match="photo_side 40, asked for 48: pass --overwrite"):
        prepare_quietly("photos", photos_dir, data_dir, photo_side=48)
    prepare_quietly("photos", photos_dir, data_dir, photo_side=48, overwrite=True)
    assert registry.open_prepared("photos", data_dir).metadata == {"photo_side": 48}


def test_a_changed_file_is_refused_with_both_checksums(digits_dir: Path, tmp_path: Path):
    path = digits_dir / "train-labels-idx1-ubyte.gz"
    shutil.copy(digits_dir / "t10k-labels-idx1-ubyte.gz", path)
    with pytest.raises(InputError, match=rf"{path} .* md5 [0-9a-f]{{32}}, expected [0-9a-f]{{32}}"):
        prepare_quietly("mnist", digits_dir, tmp_path / "data")
    assert leftovers(tmp_path / "data") == []


def test_unknown_names_and_impossible_sizes_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="did you mean 'mnist'"):
        prepare_quietly("mnits", tmp_path, tmp_path)
    with pytest.raises(InputError, match="photo_side is 31; allowed: 32"):
        prepare_quietly("photos", tmp_path, tmp_path, photo_side=31)
    with pytest.raises(InputError, match=r"give a folder of images, .* --from DIR"):
        prepare_quietly("photos", None, tmp_path)


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        ((28, 28), 10, r"image 0 of mnist train has the label 10; allowed: 0 to 9"),
        ((28, 28), -1, r"has the label -1; allowed: 0 to 9"),
        ((28, 30), 0, r"image 0 of mnist train is 30 x 28 pixels; allowed: 28 x 28"),
    ],
)
def test_what_could_not_be_loaded_is_not_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    image: tuple[int, int],
    label: int,
    message: str,
):
    features = {
        "image": tfds.features.Image(shape=(28, 28, 1), encoding_format="png"),
        "label": tfds.features.ClassLabel(num_classes=10),
    }
    example = {"image": png(np.zeros(image, np.uint8)), "label": label}
    content = Content("made here", features, {"train": Split(1, [example])})
    mine = dataclasses.replace(registry.PREPARABLE["mnist"], prepare=lambda _: content)
    monkeypatch.setitem(registry.PREPARABLE, "mnist", mine)
    with pytest.raises(InputError, match=message):
        prepare_quietly("mnist", tmp_path, tmp_path / "data")
    assert leftovers(tmp_path / "data") == []


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8), np.float32), np.zeros((8, 8, 4), np.uint8), np.zeros(8, np.uint8)]
)
def test_only_bytes_in_grey_or_colour_become_png(image: np.ndarray):
    with pytest.raises(InputError, match=r"allowed: uint8, of height and width"):
        typing.cast(Any, png).__wrapped__(image)  # behind the check of annotations in tests


@pytest.mark.parametrize("folder", ["mnist/3.0.1", "photos/1.0.0"])
def test_a_half_written_set_is_never_taken_for_whole(
    digits_dir: Path, photos_dir: Path, tmp_path: Path, folder: str
):
    name = folder.split("/")[0]
    data_dir = tmp_path / "data"
    (data_dir / folder).mkdir(parents=True)
    from_dir = digits_dir if name == "mnist" else photos_dir
    with pytest.raises(InputError, match=r"cannot be used .* --overwrite"):
        prepare_quietly(name, from_dir, data_dir)
    prepare_quietly(name, from_dir, data_dir, overwrite=True)
    assert registry.open_prepared(name, data_dir).examples


@pytest.mark.usefixtures("interruptible")
def test_interruption_leaves_nothing(
    digits_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    encode = mnist.png
    staged = []

    def interrupt_at_the_hundredth(image: np.ndarray) -> bytes:
        staged.append(leftovers(tmp_path / "data"))
        if len(staged) == 100:
            os.kill(os.getpid(), signal.SIGINT)
        return encode(image)

    monkeypatch.setattr(mnist, "png", interrupt_at_the_hundredth)
    with pytest.raises(KeyboardInterrupt):
        prepare_quietly("mnist", digits_dir, tmp_path / "data")
    assert len(staged[0]) == 1
    assert staged[0][0].startswith(".preparing-mnist-")
    assert leftovers(tmp_path / "data") == []


def test_what_a_killed_run_left_is_removed_after_a_day(digits_dir: Path, tmp_path: Path):
    data_dir = tmp_path / "data"
    for name, age_s in (("old", 2 * 24 * 3600), ("running", 3600)):
        folder = data_dir / f"{prepare.STAGING_PREFIX}mnist-{name}"
        (folder / "mnist" / "3.0.1").mkdir(parents=True)
        then = time.time() - age_s
        os.utime(folder, (then, then))
    prepare_quietly("mnist", digits_dir, data_dir)
    assert leftovers(data_dir) == [".preparing-mnist-running", "mnist"]


@pytest.mark.parametrize("limit", [1_000, 100_000])
def test_a_full_disk_is_said_plainly_and_leaves_nothing(
    photos_dir: Path, tmp_path: Path, limit: int
):
    """A limit on the size of files stands for the full disk: the writes fail in the same place."""
    write_photo(photos_dir / "train" / "large.png", 9, height=700, width=900)
    data_dir = tmp_path / "data"
    program = f"""
        import resource
        from pathlib import Path
        from jaxres.data import prepare
        from jaxres.runtime.errors import InputError

        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
        try:
            prepare.prepare("photos", from_dir=Path({str(photos_dir)!r}),
                            data_dir=Path({str(data_dir)!r}), photo_side=700)
        except InputError as error:
            print(error)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert f"cannot write photos to {data_dir} (File too large): free space" in result.stdout
    assert leftovers(data_dir) == []


def test_no_space_left_is_said_plainly(
    digits_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(self, data_dir, all_metadata=False):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tfds.core.DatasetInfo, "write_to_directory", full)
    with pytest.raises(InputError, match=r"cannot write mnist to .*\(No space left on device\)"):
        prepare_quietly("mnist", digits_dir, tmp_path / "data")
    assert leftovers(tmp_path / "data") == []


def test_a_data_dir_that_is_a_file_is_refused(digits_dir: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write mnist"):
        prepare_quietly("mnist", digits_dir, tmp_path / "file")


def test_a_large_split_has_several_shards(
    digits_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = prepare_quietly("mnist", digits_dir, tmp_path / "whole")
    monkeypatch.setattr(writing, "SHARD_BYTES", 10_000)
    prepared = prepare_quietly("mnist", digits_dir, tmp_path / "data")
    assert len([*prepared.glob("mnist-train.array_record-*")]) > 2
    every = [list(open_with_tfds(folder).as_data_source()["train"]) for folder in (whole, prepared)]
    chex.assert_trees_all_equal(*every)


@pytest.fixture
def server(digits_dir: Path, served: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The synthetic originals at an address, and that address in the table of published files."""
    with served(digits_dir) as address:
        publish_at(address, monkeypatch)
        yield address


def publish_at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    published = mnist.PUBLISHED["mnist"]
    files = {
        key: file._replace(url=f"{address}{file.name}.gz") for key, file in published.files.items()
    }
    monkeypatch.setitem(mnist.PUBLISHED, "mnist", published._replace(files=files))


@pytest.mark.usefixtures("server")
def test_download(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    prepare.prepare("mnist", from_dir=None, data_dir=tmp_path / "data")
    assert registry.open_prepared("mnist", tmp_path / "data").examples["test"] == SYNTHETIC_TEST
    output, errors = capfd.readouterr()
    assert output == ""
    assert errors.startswith("downloading mnist (4 files)\n")
    assert leftovers(tmp_path / "data") == ["downloads", "mnist"]


@pytest.mark.usefixtures("server")
def test_a_missing_download_is_said_plainly(digits_dir: Path, tmp_path: Path):
    (digits_dir / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match=r"could not be downloaded \(HTTP Error 404"):
        prepare_quietly("mnist", None, tmp_path / "data")


@pytest.mark.usefixtures("server")
def test_a_changed_download_is_refused(digits_dir: Path, tmp_path: Path):
    path = digits_dir / "train-labels-idx1-ubyte.gz"
    shutil.copy(digits_dir / "t10k-labels-idx1-ubyte.gz", path)
    with pytest.raises(InputError, match=r"is not the published file"):
        prepare_quietly("mnist", None, tmp_path / "data")
    assert leftovers(tmp_path / "data") == ["downloads"]


@pytest.mark.usefixtures("server")
def test_a_download_that_tfds_knows_otherwise_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    other = checksums.UrlInfo(size=Size(1), checksum="0" * 64, filename=None)
    urls = [file.url for file in mnist.PUBLISHED["mnist"].files.values()]
    monkeypatch.setattr(checksums, "get_all_url_infos", lambda: dict.fromkeys(urls, other))
    with pytest.raises(
        InputError, match=r"could not be downloaded .* has wrong checksum\): .* --from"
    ):
        prepare_quietly("mnist", None, tmp_path / "data")


def test_offline_is_said_at_once(digits_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    publish_at("http://127.0.0.1:9/", monkeypatch)  # the discard port: nothing listens
    start = time.monotonic()
    with pytest.raises(InputError, match=r"could not be downloaded .* --from DIR"):
        prepare_quietly("mnist", None, tmp_path / "data")
    assert time.monotonic() - start < 15
    assert leftovers(tmp_path / "data") == []
