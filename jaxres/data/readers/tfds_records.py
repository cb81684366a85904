"""Reading prepared datasets: TFDS folders of ArrayRecord files, checked before they are believed.

TFDS is imported on first use (0.5 s), so that the embedded datasets start without it.
"""

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxres.data.readers import tfds_json
from jaxres.data.readers.record_files import READER_OPTIONS
from jaxres.runtime.errors import InputError, brief

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

# What an example must have, and the kind in which TFDS stores it.
STORED_AS = {
    "image": "bytes_list",
    "label": "int64_list",
    "id": "bytes_list",
    "file_name": "bytes_list",
    "sha256": "bytes_list",
}


class Row(NamedTuple):
    """A line of `jaxres data list`."""

    name: str
    title: str
    ready: bool
    path: str | None  # None where the data come with a dependency
    examples: dict[str, int]  # per split; empty where the set is not ready
    problem: str | None = None  # why a set that is there cannot be used
    partial: str | None = None  # what a set that is ready lacks


def open_prepared(name: str, folder: Path, features: Collection[str]) -> "Prepared":
    """A prepared dataset whose files are all there; `Prepared.read` checks their content."""
    if not folder.is_dir():
        raise InputError(
            f"{name} is not prepared in {folder.parents[1]}: run `jaxres data prepare {name}`, or "
            "name the folder that has it by --data.data-dir or $TFDS_DATA_DIR"
        )
    prepared = Prepared(name, folder, frozenset(features))
    prepared.check()
    return prepared


def describe(name: str, title: str, folder: Path, features: Collection[str]) -> Row:
    """The line of `jaxres data list` for a dataset that is prepared on disk."""
    try:
        prepared = open_prepared(name, folder, features)
    except InputError as error:
        problem = str(error) if folder.exists() else None
        return Row(name, title, ready=False, path=str(folder), examples={}, problem=problem)
    return Row(name, title, True, str(folder), prepared.examples, partial=prepared.partial)


@dataclass(frozen=True)
class Prepared:
    """A TFDS dataset in ArrayRecord files on disk."""

    name: str
    folder: Path
    must_have: frozenset[str]  # features of an example
    others: bool = False  # whether it may have more than those that are read here
    remedy: str = ""  # what to do if it is damaged

    @cached_property
    def info(self) -> "tfds.core.DatasetInfo":
        """What `dataset_info.json` and `features.json` say."""
        import tensorflow_datasets as tfds

        try:
            tfds_json.check(self.folder)
            info = tfds.builder_from_directory(os.fspath(self.folder)).info
            features: Any = info.features or ()
            names = set(features)
        # TFDS and protobuf raise whatever their layers met.
        except Exception as error:
            raise self.damaged(self.folder, f"TFDS cannot open it: {brief(error)}") from error
        allowed = names if self.others else STORED_AS.keys()
        if info.name != self.name or not self.must_have <= names <= allowed:
            reason = f"it holds {info.name} with {', '.join(sorted(names))}"
            raise self.damaged(self.folder, reason)
        file_format = info.file_format
        if file_format is None or file_format.value != "array_record":
            given = file_format.value if file_format else "unknown"
            raise InputError(
                f"{self.folder} is in TFDS file format '{given}'; allowed: array_record "
                f"(give another data_dir, or {self._converted})"
            )
        return info

    @property
    def features(self) -> Any:
        """TFDS's feature connectors by name."""
        return self.info.features

    @property
    def examples(self) -> dict[str, int]:
        """Examples per split."""
        return {name: split.num_examples for name, split in self.info.splits.items()}

    @property
    def metadata(self) -> dict[str, Any]:
        """What the preparation noted beside the images."""
        return dict(self.info.metadata or {})

    @property
    def partial(self) -> str | None:
        """What of the published set is missing; None where nothing is."""
        return self.metadata.get("partial")

    def check(self) -> None:
        """Refuse a set with a shard that is missing, cut short or of another length than recorded.

        Reads the end of each shard only, where ArrayRecord keeps its index.
        """
        if not self.info.splits:
            raise self.damaged(self.folder, "its dataset_info.json lists no splits")
        for split in self.info.splits:
            for path, recorded in self.shards(split):
                self._open_shard(path, recorded)

    def read(self, split: str, indices: Sequence[int] | None = None) -> Iterator[dict[str, Any]]:
        """Examples of a split in file order, images still encoded.

        Every record of the split is read, since ArrayRecord then verifies the checksum of each of
        its chunks and the total size can be compared with the recorded one; only the examples at
        `indices` (all by default) are parsed.
        """
        from google.protobuf.message import DecodeError
        from tensorflow_datasets.proto import tf_example_pb2

        if split not in self.info.splits:
            raise self.damaged(self.folder, f"it has no split '{split}'")
        records = self._records(split)
        names = tuple(self.features)
        parse = tf_example_pb2.Example.FromString  # pyright: ignore[reportAttributeAccessIssue]
        for index in range(len(records)) if indices is None else indices:
            # TFDS's own parser, for values of any shape, takes 27 us a digit; this takes 5.
            try:
                stored = parse(records[index]).features.feature
            except DecodeError as error:
                raise self.damaged(self.folder, f"example {index}: {error}") from error
            yield {name: self._value(stored[name], name) for name in names}

    def _value(self, feature: Any, name: str) -> Any:
        """The one number or string of a feature."""
        values = getattr(feature, STORED_AS[name]).value
        if len(values) != 1:
            raise self.damaged(self.folder, f"an example has not one '{name}'")
        return values[0]

    def _records(self, split: str) -> list[bytes]:
        records = []
        for path, recorded in self.shards(split):
            reader = self._open_shard(path, recorded)
            try:
                records += reader.read_all()
            except RuntimeError as error:
                raise self.damaged(path, str(error)) from error
        size, recorded_size = sum(map(len, records)), int(self.info.splits[split].num_bytes)
        if size != recorded_size:
            reason = f"split '{split}' has {size} bytes, its dataset_info.json says {recorded_size}"
            raise self.damaged(self.folder, reason)
        return records

    def shards(self, split: str) -> Iterator[tuple[Path, int]]:
        """The files of a split, each with its recorded number of examples."""
        info = self.info.splits[split]
        for path, length in zip(info.filepaths, info.shard_lengths, strict=True):
            yield Path(path), length

    def _open_shard(self, path: Path, recorded: int) -> Any:
        from array_record.python.array_record_module import ArrayRecordReader

        if not path.is_file():
            raise self.damaged(path, "it is missing")
        try:
            reader = ArrayRecordReader(os.fspath(path), READER_OPTIONS)
        except RuntimeError as error:
            raise self.damaged(path, str(error)) from error
        # A file cut at a block of 64 KiB can open as an empty one.
        if reader.num_records() != recorded:
            reason = f"it has {reader.num_records()} examples, dataset_info.json says {recorded}"
            raise self.damaged(path, reason)
        return reader

    def damaged(self, path: Path, reason: str) -> InputError:
        """An error for something in the set that is not as it should be."""
        return InputError(f"{path} cannot be used ({reason}): {self._mended}")

    @property
    def _mended(self) -> str:
        return self.remedy or f"run `jaxres data prepare {self.name} --overwrite`"

    @property
    def _converted(self) -> str:
        """How it is brought into ArrayRecord."""
        if not self.others:
            return f"replace it with `jaxres data prepare {self.name} --overwrite`"
        inner = self.folder.relative_to(self.folder.parents[1])
        return (
            f"convert it by `tfds convert_format --dataset_version_dir={self.folder} "
            f"--out_file_format=array_record --out_dir=OTHER_DATA_DIR/{inner}`"
        )
