"""CIFAR-10's batches and their archive; a pickle is read only once its checksum is right."""

import contextlib
import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from hypothesis import strategies as st

from jaxres.data.datasets import cifar10
from tests.data.conftest import cifar_bytes
from tests.faults.fuzz.damage import damaged, damaged_tree
from tests.faults.fuzz.reader import Reader, unless_same

IMAGES = 3


def archive_of(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    """A tar archive in memory."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # pyright: ignore[reportArgumentType, reportCallIssue]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@contextlib.contextmanager
def batches(scratch: Path) -> Iterator[Reader]:
    """`cifar10.read` of a folder of six gzipped batches, or of the archive."""
    del scratch
    random = np.random.default_rng(1)
    pickles = {}
    for name in cifar10.BATCHES:
        data = random.integers(0, 256, (IMAGES, 3072), dtype=np.uint8)
        pickles[name] = cifar_bytes(data, random.integers(0, 10, IMAGES).tolist())
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in pickles.items()}
    packed = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in pickles.items()}
    archive = archive_of({f"{cifar10.FOLDER}/{name}": pickles[name] for name in pickles})

    def read(source: Path, output: Path) -> Any:
        found = cifar10.read(source, partial=True)
        return [(batch.images, batch.labels) for batch in found.values()]

    def wrong(tree: Any, content: Any) -> str | None:
        """Some batches may be missing, and those that are there are as published."""
        for images, labels in content:
            if unless_same(*valid)(tree, (images, labels)):
                return "the content of a batch changed unnoticed"
        return None

    with (
        mock.patch.dict(cifar10.BATCHES, md5),
        mock.patch.object(cifar10, "ARCHIVE_MD5", hashlib.md5(archive).hexdigest()),
    ):
        valid = [tuple(cifar10._unpickle(content)) for content in pickles.values()]
        as_archive = damaged(archive).map(lambda content: {cifar10.ARCHIVE: content})
        bomb = {**packed, "data_batch_3.gz": gzip.compress(bytes(200 << 20), 1)}
        yield Reader(st.one_of(damaged_tree(packed), as_archive, st.just(bomb)), read, wrong)
