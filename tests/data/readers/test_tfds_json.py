"""A prepared dataset whose metadata says something else than it should."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from jaxres.data.datasets import registry
from jaxres.runtime.errors import InputError

MODULE = "imported_by_a_data_file"


def load(data_dir: Path) -> registry.Source:
    options: dict[str, Any] = {"validation_examples": 40, "split_seed": 0, "canvas": 32}
    return registry.load("mnist", "test", data_dir=data_dir, **options)


def change(path: Path, into: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(into(json.loads(path.read_text()))))


def test_no_module_is_imported_because_a_file_names_it(
    synthetic_data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / f"{MODULE}.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = registry.PREPARABLE["mnist"].folder(synthetic_data_dir) / "features.json"
    whole = path.read_text()
    image = "tensorflow_datasets.core.features.image_feature.Image"
    legacy = {"type": f"{MODULE}.Image", "content": {}}
    for hostile in (
        whole.replace(image, f"{MODULE}.Image"),
        whole.replace(f'"pythonClassName": "{image}"', f'"python_class_name": "{MODULE}.Image"'),
        json.dumps(legacy),
    ):
        path.write_text(hostile)
        with pytest.raises(InputError, match=f"names the class '{MODULE}.Image'"):
            load(synthetic_data_dir)
    assert MODULE not in sys.modules


def test_shards_are_not_looked_for_elsewhere(synthetic_data_dir: Path):
    path = registry.PREPARABLE["mnist"].folder(synthetic_data_dir) / "dataset_info.json"

    def elsewhere(info: Any) -> Any:
        info["splits"][0]["filepathTemplate"] = "../../{SPLIT}"
        return info

    change(path, elsewhere)
    with pytest.raises(InputError, match=r"has the template '\.\./\.\./{SPLIT}'"):
        load(synthetic_data_dir)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("features.json", "null", "TFDS cannot open it"),
        ("features.json", "[" * 100_000, "nested too deeply"),
        ("features.json", '{"a": 1}', "TFDS cannot open it"),
        ("dataset_info.json", '{"a": ' + "9" * 5000 + "}", "TFDS cannot open it"),
        ("dataset_info.json", " " * (1 << 21), "more than 1048576 bytes"),
        ("metadata.json", "3", "holds no names and values"),
        ("label.labels.txt", "0\n1\n", r"its classes are \['0', '1'\], not 0"),
    ],
)
def test_metadata_that_is_none(synthetic_data_dir: Path, name: str, content: str, reason: str):
    (registry.PREPARABLE["mnist"].folder(synthetic_data_dir) / name).write_text(content)
    with pytest.raises(InputError, match=f"{reason}.*data prepare mnist --overwrite") as error:
        load(synthetic_data_dir)
    assert "\n" not in str(error.value)


def test_a_pipe_in_place_of_a_file_is_not_waited_for(synthetic_data_dir: Path):
    path = registry.PREPARABLE["mnist"].folder(synthetic_data_dir) / "dataset_info.json"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match=r"dataset_info.json is not a regular file"):
        load(synthetic_data_dir)


def write_test_split(folder: Path, examples: list[bytes]) -> None:
    """Examples in place of the split's, with the checksums and sizes that they ought to have."""
    from array_record.python.array_record_module import ArrayRecordWriter

    (shard,) = folder.glob("mnist-test.*")
    writer = ArrayRecordWriter(str(shard), "group_size:1")
    for example in examples:
        writer.write(example)
    writer.close()

    def resized(info: Any) -> Any:
        (split,) = (split for split in info["splits"] if split["name"] == "test")
        split["shardLengths"] = [str(len(examples))]
        split["numBytes"] = str(sum(map(len, examples)))
        return info

    change(folder / "dataset_info.json", resized)


def example(image: Any, label: Any) -> bytes:
    from tensorflow_datasets.proto import tf_example_pb2

    made = tf_example_pb2.Example()  # pyright: ignore[reportAttributeAccessIssue]
    for name, value in (("image", image), ("label", label)):
        kind = "bytes_list" if isinstance(value, bytes) else "int64_list"
        getattr(made.features.feature[name], kind).value.append(value)
    return made.SerializeToString()


def png(side: int) -> bytes:
    return cv2.imencode(".png", np.zeros((side, side), np.uint8))[1].tobytes()


def test_examples_of_something_else_are_refused(synthetic_data_dir: Path):
    folder = registry.PREPARABLE["mnist"].folder(synthetic_data_dir)
    cases = {
        "example 0: Error parsing message": b"no example",
        "has not one 'image'": example(3, 3),
        "has not one 'label'": example(png(28), b"3"),
        "a label is 10": example(png(28), 10),
        "a label is 1099511627776": example(png(28), 2**40),
        r"an image has shape \(30, 30\), not \(28, 28\)": example(png(30), 3),
        "is not a whole image": example(b"no picture", 3),
    }
    for reason, stored in cases.items():
        write_test_split(folder, [stored])
        with pytest.raises(InputError, match=reason):
            load(synthetic_data_dir)
    write_test_split(folder, [example(png(28), 9)])
    assert load(synthetic_data_dir).labels.tolist() == [9]
