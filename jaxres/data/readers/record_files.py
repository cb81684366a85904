"""One field of the examples in ArrayRecord files, read by number when it is asked for.

Grain's workers read what a batch needs and nothing else, so memory does not grow with a dataset.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from jaxtyping import Int64

from jaxres.runtime.errors import InputError, brief

# Nothing is read ahead of few examples here and there, nor, with threads, of all in a row.
READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
READ_AT_ONCE = 8  # examples


@dataclasses.dataclass(frozen=True)
class RecordFiles:
    """The bytes in `field` of the `chosen` examples, numbered through all files in a row."""

    files: Sequence[Path]
    field: str
    chosen: Int64[np.ndarray, " n"]
    told_by: bytes  # what the dataset says of itself, to tell it from others
    _opened: list[Any] = dataclasses.field(
        default_factory=list, init=False, repr=False, compare=False
    )

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> bytes:
        from google.protobuf.message import DecodeError
        from tensorflow_datasets.proto import tf_example_pb2

        if not self._opened:
            files = [os.fspath(file) for file in self.files]
            self._opened.append(ArrayRecordDataSource(files))
        number = int(self.chosen[index])
        parse = tf_example_pb2.Example.FromString  # pyright: ignore[reportAttributeAccessIssue]
        try:
            (content,) = (
                parse(self._opened[0][number]).features.feature[self.field].bytes_list.value
            )
        except (RuntimeError, OSError, IndexError, ValueError, DecodeError) as error:
            raise InputError(
                f"{self.files[0].parent} cannot be used (example {number}: {brief(error)}): "
                "prepare it again"
            ) from error
        return content

    def only(self, index: slice | Int64[np.ndarray, " n"]) -> "RecordFiles":
        """Some of them."""
        return RecordFiles(self.files, self.field, self.chosen[index], self.told_by)

    def identity(self) -> Iterator[bytes]:
        """What tells these examples from others, without reading them all."""
        yield self.told_by
        yield self.chosen.astype("<i8").tobytes()

    def __getstate__(self) -> dict[str, Any]:
        """Without the open files: a worker opens its own."""
        return self.__dict__ | {"_opened": []}


def numbers_in(files: Sequence[Path], field: str) -> list[list[int]]:
    """The whole numbers in `field` of every example, which has to be read for it: some at a time.

    Raises:
        InputError: a file is damaged.
    """
    from array_record.python.array_record_module import ArrayRecordReader
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    parse = tf_example_pb2.Example.FromString  # pyright: ignore[reportAttributeAccessIssue]
    found = []
    for file in files:
        try:
            reader = ArrayRecordReader(os.fspath(file), READER_OPTIONS)
            count = reader.num_records()
            for first in range(0, count, READ_AT_ONCE):
                for record in reader.read(first, min(first + READ_AT_ONCE, count)):
                    found.append(list(parse(record).features.feature[field].int64_list.value))
        except (RuntimeError, OSError, IndexError, ValueError, DecodeError) as error:
            raise InputError(f"{file} cannot be used ({brief(error)}): prepare it again") from error
    return found
