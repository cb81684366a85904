"""Small originals made on the spot, and the real ones where the machine has them."""

import contextlib
import functools
import gzip
import hashlib
import http.server
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from jaxres.data import prepare
from jaxres.data.datasets import cifar10, flowers, registry
from jaxres.data.datasets.mnist import PUBLISHED
from jaxres.runtime.files import locked

SYNTHETIC_TRAIN, SYNTHETIC_TEST = 200, 50
CIFAR_BATCH = 20
FLOWERS = {"dandelion": 12, "daisy": 9, "tulips": 10, "sunflowers": 11, "roses": 8}

Served = Callable[[Path], contextlib.AbstractContextManager[str]]


def idx_bytes(array: np.ndarray, *, idx_type: int = 0x08) -> bytes:
    """An array in IDX format, written independently of the reader."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, idx_type, array.ndim]) + sizes + array.tobytes()


def cifar_bytes(data: np.ndarray, labels: list[int]) -> bytes:
    """A batch of CIFAR-10 as published: rows of 3,072 values, pickled under NumPy's old names."""
    pickled = pickle.dumps({b"data": data, b"labels": labels}, protocol=3)
    return pickled.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def pixels(source: registry.Source) -> set[bytes]:
    """The images of a source, to tell whether two share one."""
    return {image.tobytes() for image in np.asarray(source.images)}


def write_photo(path: Path, seed: int, *, height: int = 48, width: int = 64) -> Path:
    """A smooth random colour image in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    encoded = cv2.imencode(path.suffix.lower(), cv2.resize(coarse, (width, height)))[1]
    path.write_bytes(encoded.tobytes())
    return path


@pytest.fixture(scope="session")
def prepared(
    original: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """`prepared("mnist")`: a data_dir where it is made of its published files, once for all tests.

    CIFAR-10 is there in part.
    """
    data_dir = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # one for all workers
        data_dir = data_dir.parent
    data_dir /= "prepared"

    def find(name: str) -> Path:
        from_dir = original({"photos": "scenes"}.get(name, name))
        partial = name == "cifar10"
        with locked(data_dir / name):
            prepare.prepare(
                name, from_dir=from_dir, data_dir=data_dir, partial=partial, progress=False
            )
        return data_dir

    return find


@pytest.fixture
def digits_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Originals in MNIST's form, 200 and 50 random images; their checksums are the published."""
    folder = tmp_path / "originals"
    folder.mkdir()
    rng = np.random.default_rng(0)
    files = {}
    for key, file in PUBLISHED["mnist"].files.items():
        count = SYNTHETIC_TRAIN if key.startswith("train") else SYNTHETIC_TEST
        shape, high = ((count, 28, 28), 256) if key.endswith("images") else ((count,), 10)
        content = idx_bytes(rng.integers(0, high, shape, dtype=np.uint8))
        (folder / f"{file.name}.gz").write_bytes(gzip.compress(content, compresslevel=1))
        files[key] = file._replace(md5=hashlib.md5(content).hexdigest())
    synthetic = PUBLISHED["mnist"]._replace(files=files)
    monkeypatch.setitem(PUBLISHED, "mnist", synthetic)
    return folder


@pytest.fixture
def cifar_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-10's six batches of 20 random images, gzipped; their checksums are the published."""
    folder = tmp_path / "cifar"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for name in cifar10.BATCHES:
        data = rng.integers(0, 256, (CIFAR_BATCH, 3072), dtype=np.uint8)
        content = cifar_bytes(data, rng.integers(0, 10, CIFAR_BATCH).tolist())
        (folder / f"{name}.gz").write_bytes(gzip.compress(content, compresslevel=1))
        monkeypatch.setitem(cifar10.BATCHES, name, hashlib.md5(content).hexdigest())
    return folder


@pytest.fixture
def flowers_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five folders of JPEG photographs of several sizes; their counts are the published."""
    folder = tmp_path / "flowers"
    for label, (name, count) in enumerate(FLOWERS.items()):
        monkeypatch.setitem(flowers.PUBLISHED, name, count)
        for index in range(count):
            size = {"height": 40 + 3 * index, "width": 60 - 2 * index}
            write_photo(folder / name / f"{index}_n.jpg", 100 * label + index, **size)
    return folder


@pytest.fixture
def photos_dir(tmp_path: Path) -> Path:
    """Eight photographs in folders train (4), val (2) and test (2), in all five formats."""
    folder = tmp_path / "photographs"
    names = ("train/a.jpg", "train/b.PNG", "train/sub/c.webp", "train/d.bmp")
    names += ("val/e.jpeg", "val/f.png", "test/g.png", "test/h.jpg")
    for seed, name in enumerate(names):
        write_photo(folder / name, seed)
    return folder


@pytest.fixture
def synthetic_data_dir(digits_dir: Path, photos_dir: Path, tmp_path: Path) -> Path:
    """The synthetic `mnist` and `photos`, prepared."""
    data_dir = tmp_path / "data"
    for name, folder in (("mnist", digits_dir), ("photos", photos_dir)):
        prepare.prepare(name, from_dir=folder, data_dir=data_dir, progress=False)
    return data_dir


@pytest.fixture
def served() -> Served:
    """`served(folder)`: a context in which the files of a folder are at the address it gives."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args) -> None:
            del format, args

    @contextlib.contextmanager
    def serve(folder: Path) -> Iterator[str]:
        handler = functools.partial(Handler, directory=os.fspath(folder))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
            thread = threading.Thread(target=httpd.serve_forever)
            thread.start()
            yield f"http://127.0.0.1:{httpd.server_address[1]}/"
            httpd.shutdown()
            thread.join()

    return serve


@pytest.fixture
def damage() -> Callable[[Path, str], None]:
    """Spoil a file in one of the ways that disks and copies do."""

    def spoil(path: Path, how: str) -> None:
        content = path.read_bytes()
        if how == "missing":
            path.unlink()
        elif how == "empty":
            path.write_bytes(b"")
        elif how == "cut":
            path.write_bytes(content[: len(content) * 2 // 3])
        elif how == "cut at a block":
            path.write_bytes(content[: 1 << 16])
        else:
            assert how == "one bit"
            position = 2_000  # among the first records: the end of a shard is padding
            flipped = bytes([content[position] ^ 1])
            path.write_bytes(content[:position] + flipped + content[position + 1 :])

    return spoil
