"""Datasets of a user's own: image folders with archives, CSV files, prepared sets."""

import contextlib
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from hypothesis import strategies as st

from jaxres.config import Split
from jaxres.data import prepare
from jaxres.data.datasets import registry
from jaxres.data.own import unpacking
from tests.faults.fuzz import trees
from tests.faults.fuzz.damage import damaged, damaged_json, damaged_tree
from tests.faults.fuzz.inputs.images import files, image
from tests.faults.fuzz.reader import Reader
from tests.faults.fuzz.trees import Tree

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def _folder() -> dict[str, bytes]:
    suffixes = {"a.png": ".png", "b.jpg": ".jpg", "c.webp": ".webp", "d.bmp": ".bmp"}
    return {
        f"{split}/{name}/{file}": image(suffix, 10 * place + number)
        for place, split in enumerate(("train", "test"))
        for number, name in enumerate(("cat", "dog"))
        for file, suffix in suffixes.items()
    }


def _loaded(name: str, data_dir: Path) -> Any:
    """Images and labels of all splits, as a run reads them."""
    options = {"data_dir": data_dir, "validation_examples": None, "split_seed": 0, "canvas": 32}
    sources = [registry.load(name, split, **options) for split in SPLITS]
    return [(np.asarray(each.images), each.labels, each.class_names) for each in sources]


def _wrong(tree: Tree, content: Any) -> str | None:
    del tree
    for images, labels, names in content:
        if images.shape != (len(labels), 32, 32, 3) or images.dtype != np.uint8:
            return f"images of type {images.dtype} and shape {images.shape}"
        high = labels.max() if labels.ndim == 1 else labels.shape[1] - 1
        if labels.min() < 0 or high >= len(names) or len(names) < 2:
            return f"labels {labels.tolist()} of {len(names)} classes"
    return None


@contextlib.contextmanager
def image_folders(scratch: Path) -> Iterator[Reader]:
    """`data.dataset: folder:DIR`."""
    del scratch
    valid = _folder()

    def with_one(drawn: tuple[str, bytes]) -> Tree:
        return {**valid, drawn[0]: drawn[1]}

    one = st.tuples(st.sampled_from(sorted(valid)), files()).map(with_one)

    def read(source: Path, output: Path) -> Any:
        return _loaded(f"folder:{source}", output)

    yield Reader(st.one_of(damaged_tree(valid), one), read, _wrong)


@contextlib.contextmanager
def archives(scratch: Path) -> Iterator[Reader]:
    """`jaxres data prepare NAME --layout image-folder --from DIR`, with archives in it."""
    del scratch
    valid = _folder()
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as packed:
        for name in ("cat", "dog"):
            packed.writestr(f"{name}/1.png", valid[f"train/{name}/a.png"])
    with tarfile.open(fileobj=tarred, mode="w:gz") as packed:
        for name in ("../../escaped.png", "/escaped.png", "cat/2.png"):
            member = tarfile.TarInfo(name)
            member.size = len(valid["train/cat/a.png"])
            packed.addfile(member, io.BytesIO(valid["train/cat/a.png"]))
        link = tarfile.TarInfo("cat/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        packed.addfile(link)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("cat/1.png", bytes(8 << 20))
    contents = [each.getvalue() for each in (zipped, tarred, bomb)]
    drawn = st.one_of(
        damaged(contents[0]), damaged(contents[1]), st.sampled_from(contents), st.binary()
    )
    names = st.sampled_from(("train.zip", "train/more.tgz", "test/cat/more.tar", "x.tar.gz"))

    def read(source: Path, output: Path) -> Any:
        prepare.prepare(
            "pets", from_dir=source, data_dir=output, layout="image-folder", progress=False
        )
        if (source.parent / "escaped.png").exists() or Path("/escaped.png").exists():
            raise RuntimeError("an archive wrote outside its folder")
        return _loaded("pets", output)

    made = st.tuples(names, drawn).map(lambda pair: {**valid, pair[0]: pair[1]})
    with mock.patch.object(unpacking, "MOST_ANYWAY", 4 << 20):
        yield Reader(made, read, _wrong)


@contextlib.contextmanager
def csv_files(scratch: Path) -> Iterator[Reader]:
    """`data.dataset: csv:FILE`."""
    del scratch
    images = {f"{number}.png": image(".png", number) for number in range(12)}
    labels = "\n".join(f"{name},{'ab'[k % 2]},train" for k, name in enumerate(images))
    several = "\n".join(f"{name},{k % 2},{k // 6}" for k, name in enumerate(images))
    tables = [f"file,label,split\n{labels}\n".encode(), f"file,a,b\n{several}\n".encode()]

    def read(source: Path, output: Path) -> Any:
        return _loaded(f"csv:{source / 'labels.csv'}", output)

    drawn = st.one_of(*(damaged(table, tables) for table in tables))
    yield Reader(drawn.map(lambda table: {**images, "labels.csv": table}), read, _wrong)


@contextlib.contextmanager
def prepared(scratch: Path) -> Iterator[Reader]:
    """`data.dataset: tfds:NAME`, of a set that `--layout` prepared."""
    trees.write(_folder(), scratch / "originals")
    made = prepare.prepare(
        "pets",
        from_dir=scratch / "originals",
        data_dir=scratch,
        layout="image-folder",
        progress=False,
    )
    valid = trees.read(made)

    @st.composite
    def other_json(draw: st.DrawFn) -> Tree:
        name = draw(st.sampled_from(("features.json", "dataset_info.json")))
        return {**valid, name: draw(damaged_json(valid[name]))}

    classes = json.dumps({"a": 1}).encode()

    def read(source: Path, output: Path) -> Any:
        folder = output / "pets" / "1.0.0"
        folder.parent.mkdir(parents=True)
        source.rename(folder)
        try:
            registry.describe(output)
            return _loaded("tfds:pets", output)
        finally:
            folder.rename(source)

    yield Reader(
        st.one_of(
            damaged_tree(valid), other_json(), st.just({**valid, "label.labels.txt": classes})
        ),
        read,
        _wrong,
    )
