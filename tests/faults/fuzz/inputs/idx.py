"""IDX files, alone (no checksum of their own, but gzip's) and as MNIST's four (md5 published)."""

import contextlib
import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
from hypothesis import strategies as st

from jaxres.data import prepare
from jaxres.data.datasets.mnist import PUBLISHED
from jaxres.data.readers import archives, idx
from tests.data.conftest import idx_bytes
from tests.faults.fuzz.damage import damaged, damaged_tree
from tests.faults.fuzz.reader import Reader, fingerprint, unless_same
from tests.faults.fuzz.trees import Tree

SIZES = (0, 1, 2, 3, 28, 784, 2**16, 2**20, 2**27, 2**31, 2**32 - 1)
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (5, 28, 28), dtype=np.uint8)


@st.composite
def _bombs(draw: st.DrawFn) -> bytes:
    """Headers that promise anything, over zeros that gzip packs a thousand times over."""
    shape = draw(st.lists(st.sampled_from(SIZES), min_size=1, max_size=4))
    head = bytes([0, 0, draw(st.sampled_from((8, 8, 8, 9, 13, 255))), len(shape)])
    sizes = b"".join(size.to_bytes(4, "big") for size in shape)
    zeros = draw(st.sampled_from((0, 100, 2**20, 300 * 2**20)))
    content = head + sizes
    if zeros < 2**24:
        content += bytes(zeros)
        return gzip.compress(content, 1) if draw(st.booleans()) else content
    return gzip.compress(content) + _packed_zeros(zeros)


_PACKED: dict[int, bytes] = {}


def _packed_zeros(count: int) -> bytes:
    """A member of a gzip file, made once."""
    if count not in _PACKED:
        _PACKED[count] = gzip.compress(bytes(count), 1)
    return _PACKED[count]


@contextlib.contextmanager
def one_file(scratch: Path) -> Iterator[Reader]:
    """`read_idx` of a file whose md5 nobody published."""
    del scratch
    plain, labels = idx_bytes(IMAGES), idx_bytes(IMAGES[:, 0, 0])
    packed = gzip.compress(plain, mtime=0)
    contents = st.one_of(
        damaged(plain, (labels, packed)), damaged(packed, (plain,)), damaged(labels), _bombs()
    )
    known = {fingerprint(IMAGES), fingerprint(IMAGES[:, 0, 0])}

    def wrong(tree: Tree, content: np.ndarray) -> str | None:
        given = tree["file"]
        assert isinstance(given, bytes)
        if given.startswith(archives.GZIP_MAGIC):
            given = gzip.decompress(given)
        elif fingerprint(content) in known:
            return None
        # Without a checksum the file is what its header says, and all of it.
        return None if given[4 + 4 * content.ndim :] == content.tobytes() else "other bytes"

    yield Reader(
        contents.map(lambda content: {"file": content}),
        lambda source, output: idx.read_idx(source / "file"),
        wrong,
    )


@contextlib.contextmanager
def mnist(scratch: Path) -> Iterator[Reader]:
    """`jaxres data prepare mnist --from DIR` of four small files with known checksums."""
    del scratch
    tree, files = {}, {}
    for key, file in PUBLISHED["mnist"].files.items():
        content = idx_bytes(IMAGES if key.endswith("images") else IMAGES[:, 0, 0] % 10)
        tree[f"{file.name}.gz"] = gzip.compress(content, mtime=0)
        files[key] = file._replace(md5=hashlib.md5(content).hexdigest())

    def read(source: Path, output: Path) -> dict[str, np.ndarray]:
        prepare.prepare("mnist", from_dir=source, data_dir=output, progress=False)
        found = {key: idx.find_idx(source, file.name) for key, file in files.items()}
        return {key: idx.read_idx(path) for key, path in found.items()}

    valid = {key: IMAGES if "images" in key else IMAGES[:, 0, 0] % 10 for key in files}
    synthetic = PUBLISHED["mnist"]._replace(files=files)
    with mock.patch.dict(PUBLISHED, mnist=synthetic):
        yield Reader(damaged_tree(tree), read, unless_same(valid))
