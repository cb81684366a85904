"""The contest's files: reading, every mistake in them, preparing, splitting, predicting's side."""

import contextlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxres.cli.main import main
from jaxres.config import Config, DataConfig, Split, TrainConfig
from jaxres.data import prepare
from jaxres.data.composed import open_split
from jaxres.data.datasets import modified_mnist, registry
from jaxres.data.pipeline import eval_batches
from jaxres.data.readers.archives import read_bytes
from jaxres.data.readers.decoding import decode_image
from jaxres.runtime.errors import InputError
from tests.data.conftest import pixels

# As skewed as the original's.
COUNTS = [2, 3, 6, 12, 19, 25, 37, 53, 63, 80]
LABELS = np.random.default_rng(1).permutation(np.repeat(np.arange(10), COUNTS))
IMAGES = np.random.default_rng(2).integers(0, 256, (len(LABELS), 16, 16), dtype=np.uint8)
IMAGES = IMAGES.repeat(8, axis=1).repeat(8, axis=2)


def rows(labels: np.ndarray) -> list[str]:
    return ["Id,Label", *(f"{index},{label}" for index, label in enumerate(labels))]


def write_csv(folder: Path, lines: list[str]) -> Path:
    path = folder / "train_max_y.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def contest_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 images of 16x16 blocks with the labels of the first few by Id, as published."""
    folder = tmp_path_factory.mktemp("contest")
    (folder / "train_max_x").write_bytes(pickle.dumps(IMAGES.astype(np.float32), 4))
    header, *lines = rows(LABELS)
    write_csv(folder, [header, *lines[::-1]])
    return folder


@pytest.fixture(scope="module")
def contest_data(contest_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data_dir = tmp_path_factory.mktemp("data")
    prepare.prepare("modified_mnist", from_dir=contest_dir, data_dir=data_dir, progress=False)
    return data_dir


def load(split: Split, data_dir: Path, *, held_out: int = 60, seed: int = 0) -> registry.Source:
    return registry.load(
        "modified_mnist",
        split,
        data_dir=data_dir,
        validation_examples=held_out,
        split_seed=seed,
        canvas=128,
    )


def test_tfds_opens_the_prepared_set(contest_data: Path):
    folder = contest_data / "modified_mnist" / "1.0.0"
    builder: Any = tfds.builder_from_directory(folder)
    assert builder.info.features["image"].shape == (128, 128, 1)
    assert builder.info.features["label"].names == list("0123456789")
    assert [*builder.info.splits] == ["train"]
    examples = builder.as_data_source("train")
    assert len(examples) == len(LABELS)
    for index in (0, 7, 299):
        np.testing.assert_array_equal(examples[index]["image"][..., 0], IMAGES[index])
    stored = [
        example["label"]
        for example in registry.open_prepared("modified_mnist", contest_data).read("train")
    ]
    assert stored == LABELS.tolist()


def test_every_split_is_as_skewed_as_the_whole(contest_data: Path):
    parts = {split: load(split, contest_data) for split in registry.SPLITS}
    counts = {split: np.bincount(part.labels, minlength=10) for split, part in parts.items()}
    assert counts["test"].tolist() == [-(-count // 10) for count in COUNTS]
    assert counts["validation"].sum() == 60
    others = np.array(COUNTS) - counts["test"]
    assert np.abs(counts["validation"] - others * 60 / others.sum()).max() < 1
    assert np.sum([*counts.values()], axis=0).tolist() == COUNTS
    assert len(set.union(*map(pixels, parts.values()))) == len(LABELS)
    labels = {image.tobytes(): label for image, label in zip(IMAGES, LABELS, strict=True)}
    for part in parts.values():
        assert part.class_names == tuple("0123456789")
        assert part.grey
        for image, label in zip(np.asarray(part.images), part.labels, strict=True):
            assert labels[image.tobytes()] == label


def test_the_split_depends_on_the_seed_alone(contest_data: Path):
    first, again, other = (load("validation", contest_data, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.images, again.images)
    assert pixels(first) != pixels(other)
    test, other_test = (load("test", contest_data, seed=seed) for seed in (3, 4))
    np.testing.assert_array_equal(test.images, other_test.images)


@pytest.mark.parametrize("held_out", [0, 265])
def test_impossible_validation_examples(contest_data: Path, held_out: int):
    with pytest.raises(InputError, match=f"is {held_out}; allowed for modified_mnist: 1 to 264"):
        load("train", contest_data, held_out=held_out)


@pytest.mark.parametrize("canvas", [128, 64])
def test_the_images_are_for_the_plain_composition(contest_data: Path, canvas: int):
    data = DataConfig(
        dataset="modified_mnist",
        composition="plain",
        canvas=canvas,
        data_dir=str(contest_data),
        render="host",
        validation_examples=60,
    )
    shown = open_split(Config(data=data, train=TrainConfig(limit_eval_examples=3)), "test")
    with eval_batches(shown, 3) as batches:
        ((batch, real),) = batches
    assert (batch["image"].shape, real) == ((3, canvas, canvas, 3), 3)
    if canvas == 128:
        np.testing.assert_array_equal(batch["image"][..., 0], np.asarray(shown.source.images))


def test_a_test_array_becomes_no_split(contest_dir: Path, tmp_path: Path, capfd):
    folder = tmp_path / "contest"
    folder.mkdir()
    np.save(folder / "train_max_x.npy", IMAGES[:20])
    np.save(folder / "test_max_x.npy", IMAGES[20:30])
    write_csv(folder, rows(LABELS[:20]))
    words = ["data", "prepare", "modified_mnist", "--from", str(folder)]
    assert main([*words, "--data-dir", str(tmp_path / "data")]) == 0
    said = capfd.readouterr().err
    assert "test_max_x.npy has no published labels, so no split is made of it; use it with" in said
    assert f"predict RUN_DIR --submission {folder / 'test_max_x.npy'} -o FILE.csv" in said
    prepared = registry.open_prepared("modified_mnist", tmp_path / "data")
    assert prepared.examples == {"train": 20}


def test_without_its_files_one_sentence(tmp_path: Path, capfd):
    assert main(["data", "prepare", "modified_mnist", "--data-dir", str(tmp_path)]) == 2
    assert capfd.readouterr().err == (
        "error: modified_mnist is not published anywhere: give the folder of the contest's files, "
        "`jaxres data prepare modified_mnist --from DIR`\n"
    )


def test_the_command_refuses_a_harmful_pickle(tmp_path: Path, capfd):
    made = tmp_path / "made"

    class Harm:
        def __reduce__(self):
            return eval, (f"open({str(made)!r}, 'w')",)

    (tmp_path / "train_max_x").write_bytes(pickle.dumps([IMAGES, Harm()]))
    write_csv(tmp_path, rows(LABELS))
    data = ["--data-dir", str(tmp_path / "data")]
    assert main(["data", "prepare", "modified_mnist", "--from", str(tmp_path), *data]) == 2
    said = capfd.readouterr()
    assert not made.exists()
    assert not (tmp_path / "data").exists()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "holds the Python object 'builtins.eval', which is not read since it" in said.err


def prepare_refused(folder: Path) -> str:
    data_dir = folder / "data"
    with pytest.raises(InputError) as error:
        prepare.prepare("modified_mnist", from_dir=folder, data_dir=data_dir, progress=False)
    assert not data_dir.exists()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_missing_files(tmp_path: Path):
    assert f"no train_max_x in {tmp_path}: looked for it as such, with .pkl, " in prepare_refused(
        tmp_path
    )
    (tmp_path / "train_max_x.pkl").write_bytes(pickle.dumps(IMAGES[:2]))
    message = f"no train_max_y.csv in {tmp_path}: it holds the labels of train_max_x.pkl"
    assert prepare_refused(tmp_path) == message
    (tmp_path / "train_max_x.npy.gz").write_bytes(b"")
    message = f"{tmp_path} has train_max_x.pkl, train_max_x.npy.gz; allowed: one of them"
    assert prepare_refused(tmp_path) == message
    with pytest.raises(InputError, match=r"absent does not exist: give the folder"):
        prepare.prepare("modified_mnist", from_dir=tmp_path / "absent", data_dir=tmp_path)
    with pytest.raises(InputError, match=r"train_max_x.pkl is not a folder: give the folder"):
        prepare.prepare(
            "modified_mnist", from_dir=tmp_path / "train_max_x.pkl", data_dir=tmp_path / "data"
        )


def with_value(value: float, dtype: str = "float32") -> np.ndarray:
    images = IMAGES[:300].astype(dtype)
    images[299, 5, 5] = value
    return images


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (IMAGES[:3, :64], r"has shape (3, 64, 128); allowed: (n, 128, 128), n images"),
        (IMAGES[0], "has shape (128, 128); allowed: (n, 128, 128)"),
        (IMAGES[:2, ..., None], "has shape (2, 128, 128, 1); allowed: (n, 128, 128)"),
        (IMAGES[:0], "has shape (0, 128, 128); allowed: (n, 128, 128)"),
        (with_value(np.nan), "has pixels from nan to nan; allowed: 0 to 255"),
        (with_value(np.inf), "to inf; allowed: 0 to 255"),
        (with_value(-1, "int16"), "has pixels from -1 to"),
        (with_value(255.5), "to 255.5; allowed: 0 to 255"),
        (IMAGES[:2] / 256, "scaled; allowed: 0 to 255 (times 255)"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, array: np.ndarray, message: str):
    path = tmp_path / "array.npy"
    np.save(path, array)
    with pytest.raises(InputError) as error:
        modified_mnist.read_images(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float16", "float64", ">f4"])
def test_pixels_of_every_type_are_the_same(tmp_path: Path, dtype: str):
    path = tmp_path / "array"
    path.write_bytes(pickle.dumps(np.asfortranarray(IMAGES[:260].astype(dtype)), 4))
    found = modified_mnist.read_images(path)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, IMAGES[:260])


def test_fractions_are_rounded(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.full((1, 128, 128), 7.6))
    assert (modified_mnist.read_images(tmp_path / "a.npy") == 8).all()


GOOD = ["Id,Label", "0,9", "1,0", "2,5"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "begins with ''; allowed: the header Id,Label"),
        (["0,9", "1,0"], "begins with '0,9'; allowed: the header Id,Label"),
        (["Id,Digit", *GOOD[1:]], "begins with 'Id,Digit'; allowed: the header Id,Label"),
        ([*GOOD[:3], "1,5"], "line 4 of PATH repeats Id 1; allowed: each Id once"),
        (GOOD[:3], "PATH has labels of 2 images, the array has 3"),
        ([*GOOD, "3,1"], "the Id in line 5 of PATH is '3'; allowed: 0 to 2"),
        ([*GOOD[:3], "-1,5"], "the Id in line 4 of PATH is '-1'; allowed: 0 to 2"),
        ([*GOOD[:3], "2,10"], "the label in line 4 of PATH is '10'; allowed: 0 to 9"),
        ([*GOOD[:3], "2,"], "the label in line 4 of PATH is ''; allowed: 0 to 9"),
        ([*GOOD[:3], "2,5.0"], "the label in line 4 of PATH is '5.0'; allowed: 0 to 9"),
        ([*GOOD[:3], "2,\u0665"], "the label in line 4 of PATH is '\u0665'; allowed: 0 to 9"),
        ([*GOOD[:3], "2" * 5000 + ",5"], "the Id in line 4 of PATH is '22222"),
        ([*GOOD[:3], "2"], "line 4 of PATH has 1 values; allowed: an Id, a label"),
        ([*GOOD[:3], "2,5,6"], "line 4 of PATH has 3 values; allowed: an Id, a label"),
        ([*GOOD[:3], "2," + "5" * 200_000], "PATH is not readable as CSV: field larger"),
    ],
)
def test_other_labels_are_refused(tmp_path: Path, lines: list[str], message: str):
    path = write_csv(tmp_path, lines)
    with pytest.raises(InputError) as error:
        modified_mnist.read_labels(path, 3)
    assert message.replace("PATH", str(path)) in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("ending", ["\n", "\r\n", ""])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_labels_are_matched_by_id(tmp_path: Path, start: str, ending: str):
    path = tmp_path / "labels.csv"
    path.write_bytes((start + "Id,Label\r\n2,5\r\n0,9\r\n1,0" + ending).encode())
    assert modified_mnist.read_labels(path, 3).tolist() == [9, 0, 5]


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_rotten_labels_are_refused_or_are_labels(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
):
    content = bytearray("\n".join(GOOD), "ascii")
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "rotten.csv"
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        labels = modified_mnist.read_labels(path, 3)
        assert labels.shape == (3,)
        assert labels.max() < 10


def test_a_cut_array_is_refused(tmp_path: Path, damage: Callable[[Path, str], None]):
    (tmp_path / "train_max_x").write_bytes(pickle.dumps(IMAGES[:3]))
    write_csv(tmp_path, rows(LABELS[:3]))
    damage(tmp_path / "train_max_x", "cut")
    assert "only 32" in prepare_refused(tmp_path)


def test_the_real_samples_survive_the_way(original: Callable[[str], Path], tmp_path: Path):
    """Eight published samples as an array: what comes out of the prepared set is what went in."""
    folder = original("modified_mnist")
    lines = (folder / "labels.csv").read_text().split()[1:]
    wanted = [int(line.partition(",")[2]) for line in lines]
    files = [read_bytes(folder / f"{index:02d}.png") for index in range(8)]
    images = np.stack([decode_image(file, folder, grey=True) for file in files])
    (tmp_path / "train_max_x").write_bytes(pickle.dumps(images.astype(np.float32)))
    write_csv(tmp_path, rows(np.array(wanted)))
    prepare.prepare("modified_mnist", from_dir=tmp_path, data_dir=tmp_path / "data", progress=False)
    parts = [load(split, tmp_path / "data", held_out=1) for split in registry.SPLITS]
    pairs = [
        pair for part in parts for pair in zip(np.asarray(part.images), part.labels, strict=True)
    ]
    labels = {image.tobytes(): label for image, label in pairs}
    assert labels == dict(zip((image.tobytes() for image in images), wanted, strict=True))
