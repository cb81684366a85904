"""PyTorch's weight files: the zip of torch 1.6 and later, and the stream of pickles before it.

Read without torch, and without running anything of the file (`state_dict.py`). Tensors keep their
types; what they take together is no more than the file's size, whatever its headers say.
"""

import io
import math
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from jaxres.data.readers.pickled import require_dict
from jaxres.weights import state_dict
from jaxres.weights.state_dict import Pickle, Storage, Tensor

# What the older format begins with: its number, pickled.
STREAM_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
STREAM_VERSION = 1001
# The pickle of a ResNet-152 with an optimiser's state takes half a MiB.
MAX_PICKLE_BYTES = 8 << 20
# Where training programs put the state dict, the preferred one first.
STATE_DICT_KEYS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "params",
    "weights",
    "model_ema",
    "state_dict_ema",
)

ReadStorage = Callable[[Storage, int], bytes]


class Found(NamedTuple):
    """A state dict with arrays, and notes on which of several it is."""

    arrays: dict[str, np.ndarray]
    notes: tuple[str, ...]


def read_zip(path: Path, key: str | None = None) -> Found:
    """The state dict in a zip file that `torch.save` wrote, or that of its entry `key`.

    Raises:
        RefusedGlobal: it holds Python objects other than a state dict's.
        Exception: it is damaged: whatever `zipfile` raises, or a ValueError.
    """
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"it has {len(pickles)} members 'data.pkl' in place of one")
        folder = pickles[0].removesuffix("data.pkl")

        def read(name: str, size: int | None = None) -> bytes:
            member = archive.getinfo(folder + name)
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"its member '{member.filename}' is compressed")
            limit = MAX_PICKLE_BYTES if size is None else size
            if member.file_size > limit:
                raise ValueError(f"its member '{member.filename}' has more than {limit} bytes")
            return archive.read(member)

        if f"{folder}byteorder" in archive.namelist():
            _require_little_endian(read("byteorder") == b"little")
        loaded = state_dict.load(io.BytesIO(read("data.pkl")))
        return _arrays(loaded, path, key, lambda storage, size: read(f"data/{storage.key}", size))


def read_stream(path: Path, key: str | None = None) -> Found:
    """As `read_zip`, of a file that `torch.save` wrote before torch 1.6.

    It holds five pickles (magic number, version, machine, value, keys of the storages), then each
    storage's number of elements, 64 bits, and its elements.

    Raises:
        RefusedGlobal: it holds Python objects other than a state dict's.
        ValueError: it is truncated or damaged.
    """
    with path.open("rb") as file:
        head = io.BytesIO(file.read(MAX_PICKLE_BYTES))
        head.seek(len(STREAM_MAGIC))
        version = state_dict.load(head).value
        if version != STREAM_VERSION:
            raise ValueError(f"it is of a version other than {STREAM_VERSION}")
        machine = state_dict.load(head).value
        _require_little_endian(isinstance(machine, dict) and machine.get("little_endian") is True)
        loaded = state_dict.load(head)
        places = _places(file, head, loaded)

        def read(storage: Storage, size: int) -> bytes:
            file.seek(places[storage.key])
            return file.read(size)

        return _arrays(loaded, path, key, read)


def _places(file: io.BufferedReader, head: io.BytesIO, loaded: Pickle) -> dict[str, int]:
    """Where each storage's elements begin, by its key."""
    keys = state_dict.load(head).value
    if not isinstance(keys, list) or any(type(key) is not str for key in keys):
        raise ValueError("its list of storages is damaged")
    if sorted(keys) != sorted(loaded.storages):
        raise ValueError("its list of storages is not that of its tensors")
    places = {}
    place = head.tell()
    for key in keys:
        storage = loaded.storages[key]
        file.seek(place)
        if file.read(8) != struct.pack("<q", storage.size):
            raise ValueError(f"its storage '{key}' is not where it should be: it is truncated")
        places[key] = place + 8
        place += 8 + _bytes(storage)
    return places


def _require_little_endian(holds: bool) -> None:
    if not holds:
        raise ValueError("it was not written on a little-endian machine")


def _dtype(storage: Storage) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if storage.dtype == "bfloat16" else storage.dtype)


def _bytes(storage: Storage) -> int:
    return storage.size * _dtype(storage).itemsize


def _arrays(loaded: Pickle, path: Path, key: str | None, read: ReadStorage) -> Found:
    """The state dict with arrays for tensors; `read` gives a storage's bytes, some or all."""
    tensors, notes = _state_dict(loaded.value, key)
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    needed = max(
        sum(map(_bytes, storages.values())),
        sum(math.prod(t.shape) * _dtype(t.storage).itemsize for t in tensors.values()),
    )
    available = path.stat().st_size
    if needed > available:
        raise ValueError(f"its tensors need {needed} bytes, it has only {available}")
    flat = {}
    for key, storage in storages.items():
        content = read(storage, _bytes(storage))
        if len(content) != _bytes(storage):
            raise ValueError(f"its storage '{key}' has {len(content)} of {_bytes(storage)} bytes")
        flat[key] = np.frombuffer(content, _dtype(storage))
    arrays = {name: _view(tensor, flat[tensor.storage.key]) for name, tensor in tensors.items()}
    return Found(arrays, notes)


def _view(tensor: Tensor, flat: np.ndarray) -> np.ndarray:
    strides = [stride * flat.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(
        flat[tensor.offset :], tensor.shape, strides, writeable=False
    )


def _state_dict(value: Any, key: str | None) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The dict of names and tensors in a checkpoint: itself, or an entry with a usual name.

    With it a note where several entries would do, of which `key` can name another.

    Raises:
        ValueError: there is none.
    """
    if key is not None:
        named = {n: v for n, v in require_dict(value).items() if isinstance(v, dict)}
        if key not in named:
            there = ", ".join(map(str, named)) or "it has none"
            raise ValueError(f"it has no dict '{key}'; of --key allowed: {there}")
        return _state_dict(named[key], None)
    notes: tuple[str, ...] = ()
    for _ in range(4):  # checkpoint, entry, entry within; a hostile one may hold itself
        if not isinstance(value, dict) or not value:
            break
        if all(isinstance(name, str) and type(entry) is Tensor for name, entry in value.items()):
            return value, notes
        entries = [each for each in STATE_DICT_KEYS if isinstance(value.get(each), dict)]
        if len(entries) > 1:
            others = ", ".join(entries[1:])
            notes += (f"taken from the file's '{entries[0]}'; --key takes another: {others}",)
        value = value[entries[0]] if entries else None
    raise ValueError(
        "it has no state dict, a dict of names and tensors, neither as itself nor under one of "
        f"{', '.join(STATE_DICT_KEYS)}"
    )
