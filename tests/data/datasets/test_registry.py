import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jaxres.config import Split
from jaxres.data.datasets import mnist, registry, splits
from jaxres.data.readers import idx
from jaxres.runtime.errors import InputError
from tests.data.conftest import SYNTHETIC_TEST, SYNTHETIC_TRAIN, pixels


def load(
    dataset: str,
    split: Split,
    data_dir: Path,
    *,
    validation_examples: int | None = 40,
    split_seed: int = 0,
) -> registry.Source:
    return registry.load(
        dataset,
        split,
        data_dir=data_dir,
        validation_examples=validation_examples,
        split_seed=split_seed,
        canvas=32,
    )


def test_digits_are_split_evenly_over_the_classes(tmp_path: Path):
    parts = {split: load("digits", split, tmp_path) for split in registry.SPLITS}
    assert {split: len(part.labels) for split, part in parts.items()} == {
        "train": 1197,
        "validation": 300,
        "test": 300,
    }
    assert registry.DATASETS["digits"].embedded_examples == {
        split: len(part.labels) for split, part in parts.items()
    }
    for split in ("validation", "test"):
        assert np.bincount(parts[split].labels).tolist() == [30] * 10
    # All 1,797 images differ, so none is in two splits.
    assert len(set.union(*(pixels(part) for part in parts.values()))) == 1797


def test_digits_use_the_whole_grey_range(tmp_path: Path):
    source = load("digits", "train", tmp_path)
    images = np.asarray(source.images)
    assert images.shape == (1197, 8, 8)
    assert (images.min(), images.max()) == (0, 255)
    assert len(np.unique(images)) == 17
    assert source.class_names == tuple("0123456789")


def test_digits_need_no_tfds():
    program = """
        import sys
        from pathlib import Path
        from jaxres.data.backgrounds import photographs
        from jaxres.data.datasets import registry

        folder = Path("absent")
        registry.load(
            "digits", "train", data_dir=folder, validation_examples=0, split_seed=0, canvas=64
        )
        photographs.load("embedded", "train", data_dir=folder, canvas=64, photo_side=None)
        assert "tensorflow_datasets" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=60)


@pytest.mark.parametrize("dataset", ["digits", "mnist"])
def test_the_split_depends_on_the_seed_alone(synthetic_data_dir: Path, dataset: str):
    first, again, other = (
        load(dataset, "validation", synthetic_data_dir, split_seed=seed) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert pixels(first) != pixels(other)


def test_the_drawn_order_never_changes():
    """Kept values: another order would silently be another validation set."""
    assert splits.shuffled(10, 0).tolist() == [0, 8, 9, 3, 7, 5, 1, 2, 6, 4]


def test_prepared_digits(synthetic_data_dir: Path, digits_dir: Path):
    train, validation = (load("mnist", s, synthetic_data_dir) for s in ("train", "validation"))
    assert len(validation.labels) == 40
    assert len(train.labels) == SYNTHETIC_TRAIN - 40
    assert not pixels(train) & pixels(validation)
    files = mnist.PUBLISHED["mnist"].files
    arrays = {key: idx.read_idx(idx.find_idx(digits_dir, file.name)) for key, file in files.items()}
    labels = dict(
        zip(
            (image.tobytes() for image in arrays["train_images"]),
            arrays["train_labels"],
            strict=True,
        )
    )
    for source in (train, validation):
        for image, label in zip(np.asarray(source.images), source.labels, strict=True):
            assert labels[image.tobytes()] == label
    test = load("mnist", "test", synthetic_data_dir)
    np.testing.assert_array_equal(test.images, arrays["test_images"])
    np.testing.assert_array_equal(test.labels, arrays["test_labels"])
    assert test.labels.dtype == np.int32


@pytest.mark.slow
def test_real_mnist(prepared: Callable[[str], Path]):
    data_dir = prepared("mnist")
    train, validation, test = (
        load("mnist", split, data_dir, validation_examples=10_000) for split in registry.SPLITS
    )
    assert (len(train.labels), len(validation.labels), len(test.labels)) == (50_000, 10_000, 10_000)
    # MNIST holds no image twice among its 60,000.
    assert not pixels(train) & pixels(validation)
    assert test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    # The well-known mean of the training images, 0.1307.
    total = sum(np.asarray(part.images).sum(dtype=np.int64) for part in (train, validation))
    assert total / (60_000 * 784 * 255) == pytest.approx(0.1307, abs=5e-5)


def test_a_tenth_of_what_is_no_larger_than_the_default_is_held_out(synthetic_data_dir: Path):
    held_out = load("mnist", "validation", synthetic_data_dir, validation_examples=None)
    assert len(held_out.labels) == SYNTHETIC_TRAIN / 10


@pytest.mark.parametrize("validation_examples", [-1, 0, SYNTHETIC_TRAIN])
def test_impossible_validation_examples(synthetic_data_dir: Path, validation_examples: int):
    with pytest.raises(InputError, match=f"is {validation_examples}; allowed for mnist: 1 to 199"):
        load("mnist", "train", synthetic_data_dir, validation_examples=validation_examples)


def test_unknown_names(tmp_path: Path):
    with pytest.raises(InputError, match="unknown dataset 'fashion': did you mean 'fashion_mnist'"):
        load("fashion", "train", tmp_path)
    with pytest.raises(InputError, match="split_seed is -1; allowed: 0 or more"):
        load("digits", "train", tmp_path, split_seed=-1)


def test_a_set_that_is_not_prepared(tmp_path: Path):
    with pytest.raises(
        InputError,
        match=f"not prepared in {tmp_path}: run `jaxres data prepare mnist`, .* --data.data-dir or",
    ):
        load("mnist", "train", tmp_path)


@pytest.mark.parametrize("how", ["missing", "empty", "cut", "cut at a block", "one bit"])
def test_a_damaged_shard(synthetic_data_dir: Path, damage: Callable[[Path, str], None], how: str):
    shard = synthetic_data_dir / "mnist/3.0.1/mnist-train.array_record-00000-of-00001"
    damage(shard, how)
    with pytest.raises(InputError, match="cannot be used") as error:
        load("mnist", "train", synthetic_data_dir)
    assert str(shard) in str(error.value)
    assert "jaxres data prepare mnist --overwrite" in str(error.value)


def test_a_shard_of_another_set(synthetic_data_dir: Path):
    folder = synthetic_data_dir / "mnist" / "3.0.1"
    test_shard = folder / "mnist-test.array_record-00000-of-00001"
    (folder / "mnist-train.array_record-00000-of-00001").write_bytes(test_shard.read_bytes())
    with pytest.raises(InputError, match=f"it has {SYNTHETIC_TEST} examples, .* says 200"):
        load("mnist", "train", synthetic_data_dir)


def edit_info(data_dir: Path, edit: Callable[[dict], None]) -> Path:
    path = data_dir / "mnist" / "3.0.1" / "dataset_info.json"
    info = json.loads(path.read_text())
    edit(info)
    path.write_text(json.dumps(info))
    return path.parent


def test_another_size_than_recorded(synthetic_data_dir: Path):
    edit_info(synthetic_data_dir, lambda info: info["splits"][0].update(numBytes="12345"))
    with pytest.raises(InputError, match=r"has \d+ bytes, its dataset_info.json says 12345"):
        load("mnist", "train", synthetic_data_dir)


def test_tfrecord_format(synthetic_data_dir: Path):
    folder = edit_info(synthetic_data_dir, lambda info: info.update(fileFormat="tfrecord"))
    message = f"{folder} is in TFDS file format 'tfrecord'; allowed: array_record"
    with pytest.raises(InputError, match=message):
        load("mnist", "train", synthetic_data_dir)


def test_no_splits(synthetic_data_dir: Path):
    edit_info(synthetic_data_dir, lambda info: info.pop("splits"))
    with pytest.raises(InputError, match="lists no splits"):
        load("mnist", "train", synthetic_data_dir)


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("content", [None, "", "{nonsense", "[1]"])
def test_unreadable_metadata(synthetic_data_dir: Path, name: str, content: str | None):
    path = synthetic_data_dir / "mnist" / "3.0.1" / name
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match="TFDS cannot open it"):
        load("mnist", "train", synthetic_data_dir)


def test_describe(synthetic_data_dir: Path, damage: Callable[[Path, str], None]):
    rows = {row.name: row for row in registry.describe(synthetic_data_dir)}
    assert rows.keys() == registry.DATASETS.keys()
    assert rows["digits"].ready
    assert rows["mnist"].examples == {"train": SYNTHETIC_TRAIN, "test": SYNTHETIC_TEST}
    missing = rows["fashion_mnist"]
    assert (missing.ready, missing.examples, missing.problem) == (False, {}, None)

    damage(synthetic_data_dir / "mnist/3.0.1/mnist-test.array_record-00000-of-00001", "cut")
    (row,) = [row for row in registry.describe(synthetic_data_dir) if row.name == "mnist"]
    assert not row.ready
    assert row.problem is not None
    assert "mnist-test.array_record" in row.problem
    assert json.loads(json.dumps(row._asdict()))["path"] == str(
        registry.PREPARABLE["mnist"].folder(synthetic_data_dir)
    )
