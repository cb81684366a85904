"""Any TFDS dataset that is stored as ArrayRecord and has an image and a label.

Images are read by number when a batch needs them. Labels are read once, at the start, and of large
datasets kept in the user's cache folder, since whole examples have to be read for them.
"""

import hashlib
import io
import os
import re
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

from jaxres.data.datasets.dataset import Dataset, Selection, Source
from jaxres.data.own.examples import Examples, Numbers, select
from jaxres.data.readers import decoding, record_files, tfds_json, tfds_records
from jaxres.data.readers.encoded import EncodedImages, Images
from jaxres.data.readers.record_files import RecordFiles
from jaxres.runtime.errors import InputError, os_reason
from jaxres.runtime.files import write_whole
from jaxres.runtime.paths import caches
from jaxres.runtime.screen import say

PREFIX = "tfds:"
TITLE = "a dataset of your own"
VERSION = re.compile(r"\d+\.\d+\.\d+")
MOST_IN_MEMORY = 256 << 20  # bytes of the images of one size that are kept decoded
LARGE = 256 << 20  # bytes of a dataset whose labels are kept


class Fields(NamedTuple):
    """The features of an example that are used."""

    image: str
    label: str
    multi_label: bool
    class_names: tuple[str, ...]


def dataset(name: str) -> Dataset:
    """The dataset that `tfds:NAME[/CONFIG][:VERSION]`, or the name of a prepared one, means."""
    return Dataset(name=name, title=TITLE, load=load, photographs=True)


def load(dataset: Dataset, selection: Selection) -> Source:
    """A split of a TFDS dataset."""
    prepared = open_stored(dataset.name, selection.data_dir)
    return select(_examples(prepared, selection.canvas), selection)


def open_stored(name: str, data_dir: Path) -> tfds_records.Prepared:
    """A TFDS dataset whose files are all there; its newest version, where the name gives none.

    Raises:
        InputError: it is not there, is damaged, or is stored in another format.
    """
    given, _, version = name.removeprefix(PREFIX).partition(":")
    if not re.fullmatch(r"\w+(/[\w.-]+)?", given):
        raise InputError(f"data.dataset is '{name}'; allowed: tfds:NAME, with /CONFIG or :VERSION")
    above = data_dir / given
    versions = stored_versions(above)
    if not versions or (version and version not in versions):
        there = ", ".join(versions)
        if not versions and above.is_dir():
            configs = sorted(each.name for each in above.iterdir() if stored_versions(each))
            there = ", ".join(f"{given}/{config}" for config in configs)
        raise InputError(
            f"no TFDS dataset '{given}'{' of version ' + version if version else ''} in "
            f"{data_dir}{f' (there: {there})' if there else ''}: prepare it by `tfds build {given} "
            "--file_format=array_record`, or name the folder that has it by --data.data-dir or "
            "$TFDS_DATA_DIR"
        )
    folder = above / (version or versions[-1])
    prepared = tfds_records.Prepared(
        given.split("/")[0],
        folder,
        frozenset(),
        others=True,
        remedy=f"build or prepare {given} again",
    )
    prepared.check()
    return prepared


def describe(name: str, data_dir: Path) -> tfds_records.Row:
    """Its line in `jaxres data list`."""
    path = str(data_dir / name / stored_versions(data_dir / name)[-1])
    try:
        prepared = open_stored(name, data_dir)
        classes = len(fields_of(prepared).class_names)
    except InputError as error:
        return tfds_records.Row(name, TITLE, False, path, {}, problem=str(error))
    title = f"{TITLE} of {classes} classes"
    return tfds_records.Row(name, title, True, path, prepared.examples, partial=prepared.partial)


def is_stored(name: str, data_dir: Path) -> bool:
    """Whether a name without prefix is that of a dataset in a folder of prepared ones."""
    return re.fullmatch(r"\w+", name) is not None and bool(stored_versions(data_dir / name))


def stored_versions(folder: Path) -> list[str]:
    """The versions of a TFDS dataset that lie in a folder, oldest first."""
    if not folder.is_dir():
        return []
    names = [each.name for each in folder.iterdir() if (each / tfds_json.INFO).is_file()]
    return sorted(filter(VERSION.fullmatch, names), key=lambda name: [*map(int, name.split("."))])


def fields_of(prepared: tfds_records.Prepared) -> Fields:
    """The image and the label: TFDS's supervised keys, or the only ones there are.

    Raises:
        InputError: there is no image, or no class label, or there are several.
    """
    import tensorflow_datasets as tfds

    features = prepared.features
    single = {
        name: feature
        for name, feature in features.items()
        if isinstance(feature, tfds.features.ClassLabel)
    }
    several = {
        name: feature.feature
        for name, feature in features.items()
        if isinstance(feature, tfds.features.Sequence)
        and isinstance(feature.feature, tfds.features.ClassLabel)
    }
    images = [name for name, each in features.items() if isinstance(each, tfds.features.Image)]
    labels: dict[str, Any] = single or several
    keys: Any = prepared.info.supervised_keys or ()
    image = next((name for name in keys if name in images), "")
    label = next((name for name in keys if name in labels), "")
    image = image or _only(prepared, images, "image")
    label = label or _only(prepared, list(labels), "class label")
    feature = labels[label]
    count = feature.num_classes
    if not count or count < 2:
        raise InputError(f"{prepared.folder} has {count or 'no'} classes; allowed: two or more")
    names = tuple(feature.names or map(str, range(count)))
    return Fields(image, label, label not in single, names)


def _only(prepared: tfds_records.Prepared, names: list[str], what: str) -> str:
    if len(names) != 1:
        found = f"several ({', '.join(names)})" if names else "none"
        raise InputError(
            f"{prepared.folder} has to have one {what} per example, but has {found}; its features: "
            f"{', '.join(prepared.features)}"
        )
    return names[0]


def _examples(prepared: tfds_records.Prepared, canvas: int) -> Examples:
    fields = fields_of(prepared)
    splits, files, first = {}, [], 0
    for split, count in prepared.examples.items():
        splits[split] = range(first, first + count)
        files += [path for path, _ in prepared.shards(split)]
        first += count
    told_by = _told_by(prepared, files)
    labels = _labels(prepared, fields, files, told_by)
    read = partial(_images, prepared, fields, files, told_by, canvas)
    return Examples(prepared.name, fields.class_names, splits, labels, read, prepared.partial)


def _images(
    prepared: tfds_records.Prepared,
    fields: Fields,
    files: list[Path],
    told_by: bytes,
    canvas: int,
    numbers: Numbers,
) -> Images:
    """Small ones of one size decoded, as they are stored; others when they are looked at."""
    encoded = RecordFiles(files, fields.image, numbers, told_by)
    shape = tuple(prepared.features[fields.image].shape)
    if None in shape or len(numbers) * np.prod(shape) > MOST_IN_MEMORY:
        return EncodedImages(encoded, canvas, prepared.folder)
    grey = shape[-1] == 1
    images = np.empty((len(numbers), *(shape[:2] if grey else (*shape[:2], 3))), np.uint8)
    for place, image in enumerate(images):
        decoded = decoding.decode_image(encoded[place], prepared.folder, grey=grey)
        if decoded.shape != image.shape:
            reason = f"an image has shape {decoded.shape}, not {image.shape}"
            raise prepared.damaged(prepared.folder, reason)
        image[:] = decoded
    return images


def _told_by(prepared: tfds_records.Prepared, files: list[Path]) -> bytes:
    """What tells a dataset from others without reading it: its description and files' sizes."""
    sizes = ",".join(str(file.stat().st_size) for file in files)
    return (prepared.folder / tfds_json.INFO).read_bytes() + sizes.encode()


def _labels(
    prepared: tfds_records.Prepared, fields: Fields, files: list[Path], told_by: bytes
) -> Int32[np.ndarray, " n"] | UInt8[np.ndarray, "n classes"]:
    """Those of all examples, from the cache or from the examples."""
    size = sum(file.stat().st_size for file in files)
    if size <= LARGE:
        return _read_labels(prepared, fields, files)
    key = hashlib.sha256(told_by + os.fsencode(prepared.folder.resolve())).hexdigest()[:32]
    try:
        kept = caches() / "jaxres" / "labels" / f"{key}.npy"
        return np.load(kept)
    except (OSError, ValueError):  # not there, or not whole
        say(f"reading the labels of {prepared.name} ({size >> 20:,} MiB), once")
    labels = _read_labels(prepared, fields, files)
    content = io.BytesIO()
    np.save(content, labels)
    try:
        kept = caches() / "jaxres" / "labels" / f"{key}.npy"
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_whole(kept, content.getvalue())
    except OSError as error:
        say(f"warning: the labels of {prepared.name} could not be kept: {os_reason(error)}")
    return labels


def _read_labels(
    prepared: tfds_records.Prepared, fields: Fields, files: list[Path]
) -> Int32[np.ndarray, " n"] | UInt8[np.ndarray, "n classes"]:
    found = record_files.numbers_in(files, fields.label)
    return _matrix(prepared, found, fields) if fields.multi_label else _single(prepared, found)


def _single(prepared: tfds_records.Prepared, found: list[list[int]]) -> Int32[np.ndarray, " n"]:
    if any(len(numbers) != 1 for numbers in found):
        raise prepared.damaged(prepared.folder, "an example has not one label")
    return np.clip([numbers[0] for numbers in found], -(2**31), 2**31 - 1).astype(np.int32)


def _matrix(
    prepared: tfds_records.Prepared, found: list[list[int]], fields: Fields
) -> UInt8[np.ndarray, "n classes"]:
    labels = np.zeros((len(found), len(fields.class_names)), np.uint8)
    for row, numbers in zip(labels, found, strict=True):
        if any(not 0 <= number < len(row) for number in numbers):
            raise prepared.damaged(prepared.folder, f"an example has the labels {numbers}")
        row[numbers] = 1
    return labels
