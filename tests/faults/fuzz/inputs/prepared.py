"""Prepared datasets: TFDS folders of ArrayRecord shards with their JSON files."""

import contextlib
import gzip
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from hypothesis import strategies as st

from jaxres.data import prepare
from jaxres.data.backgrounds import photographs as backgrounds
from jaxres.data.datasets import mnist, registry
from tests.data.conftest import idx_bytes
from tests.faults.fuzz import trees
from tests.faults.fuzz.damage import damaged_json, damaged_tree
from tests.faults.fuzz.inputs.images import _photographs
from tests.faults.fuzz.reader import Reader, fingerprint
from tests.faults.fuzz.trees import Tree

TRAIN, TEST = 12, 6
MARK = "imported_by_a_data_file"


def _digits(folder: Path) -> dict[str, mnist.File]:
    random = np.random.default_rng(0)
    files = {}
    folder.mkdir(parents=True)
    for key, file in mnist.PUBLISHED["mnist"].files.items():
        count = TRAIN if key.startswith("train") else TEST
        shape = (count, 28, 28) if key.endswith("images") else (count,)
        content = idx_bytes(random.integers(0, 10, shape, dtype=np.uint8))
        (folder / f"{file.name}.gz").write_bytes(gzip.compress(content))
        files[key] = file._replace(md5=hashlib.md5(content).hexdigest())
    return files


def _records_of(examples: list[bytes], scratch: Path) -> bytes:
    """A shard of any records, with the checksums that ArrayRecord wants."""
    from array_record.python.array_record_module import ArrayRecordWriter

    path = scratch / "made"
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for example in examples:
        writer.write(example)
    writer.close()
    return path.read_bytes()


def _other_examples() -> st.SearchStrategy[list[bytes]]:
    """Records that are not examples, or examples of something else."""
    from tensorflow_datasets.proto import tf_example_pb2

    kinds = tf_example_pb2.Example  # pyright: ignore[reportAttributeAccessIssue]

    def example(image: Any, label: Any) -> bytes:
        made = kinds()
        for name, value in (("image", image), ("label", label)):
            feature = made.features.feature[name]
            if isinstance(value, bytes):
                feature.bytes_list.value.append(value)
            elif isinstance(value, int):
                feature.int64_list.value.append(value)
            elif isinstance(value, float):
                feature.float_list.value.extend([value] * 2)
        return made.SerializeToString()

    images = st.sampled_from((_png(28), _png(30), b"no picture", b"", 3, 0.5, None))
    labels = st.sampled_from((0, 3, 9, 10, -1, 2**40, b"3", 1.0, None))
    one = st.one_of(st.builds(example, images, labels), st.binary(max_size=50))
    return st.lists(one, min_size=1, max_size=TRAIN)


def _png(side: int) -> bytes:
    import cv2

    return cv2.imencode(".png", np.full((side, side), 7, np.uint8))[1].tobytes()


@contextlib.contextmanager
def digits(scratch: Path) -> Iterator[Reader]:
    """`sources.load` of a small prepared MNIST."""
    scratch.mkdir(parents=True)
    files = _digits(scratch / "originals")
    synthetic = mnist.PUBLISHED["mnist"]._replace(files=files)
    with mock.patch.dict(mnist.PUBLISHED, mnist=synthetic):
        made = prepare.prepare(
            "mnist", from_dir=scratch / "originals", data_dir=scratch, progress=False
        )
    valid = trees.read(made)
    shard = next(name for name in valid if "train.array_record" in name)

    @st.composite
    def other_records(draw: st.DrawFn) -> Tree:
        made = draw(_other_examples())
        info = json.loads(valid["dataset_info.json"])
        split = next(split for split in info["splits"] if split["name"] == "train")
        split["shardLengths"] = [str(len(made))]
        split["numBytes"] = str(sum(map(len, made)))
        content = _records_of(made, scratch)
        return {**valid, shard: content, "dataset_info.json": json.dumps(info).encode()}

    @st.composite
    def other_json(draw: st.DrawFn) -> Tree:
        name = draw(st.sampled_from(("features.json", "dataset_info.json")))
        return {**valid, name: draw(damaged_json(valid[name]))}

    hostile = valid["features.json"].replace(
        b"tensorflow_datasets.core.features.image_feature.Image", f"{MARK}.Image".encode()
    )
    (scratch / f"{MARK}.py").write_text("")
    trees_ = st.one_of(
        damaged_tree(valid),
        damaged_tree(valid),
        other_records(),
        other_json(),
        st.just({**valid, "features.json": hostile}),
    )

    def read(source: Path, output: Path) -> Any:
        """Both splits, from where `jaxres data prepare` puts them."""
        folder = registry.PREPARABLE["mnist"].folder(output)
        folder.parent.mkdir(parents=True)
        source.rename(folder)
        try:
            registry.describe(output)
            selection = {"data_dir": output, "split_seed": 0, "canvas": 32}
            loaded = [
                registry.load("mnist", split, validation_examples=2, **selection)
                for split in ("train", "validation", "test")
            ]
        finally:
            folder.rename(source)
            if MARK in sys.modules:
                del sys.modules[MARK]
                raise RuntimeError("features.json had a module imported")
        return [(part.images, part.labels, part.class_names) for part in loaded]

    def wrong(tree: Tree, content: Any) -> str | None:
        for images, labels, names in content:
            if images.shape != (len(labels), 28, 28) or images.dtype != np.uint8:
                return f"images of type {images.dtype} and shape {images.shape}"
            if labels.size and not 0 <= labels.min() <= labels.max() < len(names) == 10:
                return f"labels {labels.tolist()} of {len(names)} classes"
        same_shards = all(tree.get(name) == valid[name] for name in valid if "record" in name)
        changed = fingerprint([part[:2] for part in content]) != expected
        return "the images changed unnoticed" if changed and same_shards else None

    sys.path.insert(0, str(scratch))
    try:
        trees.write(valid, scratch / "whole")
        expected = fingerprint([part[:2] for part in read(scratch / "whole", scratch / "data")])
        yield Reader(trees_, read, wrong)
    finally:
        sys.path.remove(str(scratch))


@contextlib.contextmanager
def photographs(scratch: Path) -> Iterator[Reader]:
    """`backgrounds.load` of a small prepared `photos`."""
    trees.write(_photographs(), scratch / "originals")
    made = prepare.prepare(
        "photos", from_dir=scratch / "originals", data_dir=scratch, progress=False
    )
    valid = trees.read(made)

    def read(source: Path, output: Path) -> Any:
        folder = registry.PREPARABLE["photos"].folder(output)
        folder.parent.mkdir(parents=True)
        source.rename(folder)
        try:
            return [
                backgrounds.load("photos", split, data_dir=output, canvas=32, photo_side=None)
                for split in ("train", "validation", "test")
            ]
        finally:
            folder.rename(source)

    yield Reader(damaged_tree(valid), read)
