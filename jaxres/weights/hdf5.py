"""A program that reads Keras's `.h5`, `.weights.h5` and `.keras` files: `python -m ... FILE`.

It writes NumPy's archive to standard output, or a sentence to standard error. Nothing in a file is
run: a model's configuration is never looked at. But a few changed bytes can send the HDF5 library
round in circles for ever or crash it, which a process of its own survives.
"""

import io
import math
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from jaxres.weights.keras_layers import ARCHIVE_MEMBER, Layers

# Keras begins another attribute at 64,512 bytes.
MAX_ATTRIBUTE_BYTES = 1 << 16
# Where Keras 3, and TensorFlow 2.13's Keras before it, put the layers of a model.
LAYER_GROUPS = ("layers", "_layer_checkpoint_dependencies")


def main() -> int:
    """Read the file that the command line names."""
    try:
        layers = read(Path(sys.argv[1]))
    # h5py raises whatever HDF5's layers met.
    except Exception as error:
        print(" ".join(str(error).split()) or type(error).__name__, file=sys.stderr)
        return 1
    archive: dict[str, Any] = {"named": np.array(layers.named), **layers.arrays}
    np.savez(sys.stdout.buffer, **archive)
    return 0


def read(path: Path) -> Layers:
    """The layers in a file.

    Raises:
        Exception: it is damaged: whatever `zipfile` or `h5py` raises, or a ValueError.
    """
    size = path.stat().st_size
    if h5py.is_hdf5(path):
        return _read_hdf5(path, size)
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(ARCHIVE_MEMBER)
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"its member '{ARCHIVE_MEMBER}' is compressed")
        return _read_hdf5(io.BytesIO(archive.read(member)), size)


def _read_hdf5(file: Path | io.BytesIO, size: int) -> Layers:
    with h5py.File(file, "r") as root:
        group = _member(root, "model_weights") if "model_weights" in root else root
        layers = _names(group, "layer_names")
        arrays, total = {}, 0
        for name, dataset in _listed(group, layers) if layers else _numbered(group):
            total += max(_bytes(name, dataset), 1)
            if total > size:
                raise ValueError(f"its arrays need {total} bytes or more, it has {size}")
            arrays[name] = dataset[()]
    if not arrays:
        raise ValueError("it has no layers with weights")
    return Layers(bool(layers), arrays)


def _listed(group: Any, layers: list[str]) -> Iterator[tuple[str, Any]]:
    """Files that list their layers, and each layer its weights."""
    for layer in layers:
        members = _member(group, layer)
        for number, weight in enumerate(_names(members, "weight_names")):
            yield f"{layer}/{number}", _member(members, weight)


def _numbered(root: Any) -> Iterator[tuple[str, Any]]:
    """Files with a group LAYER/vars of datasets 0, 1, ... for each layer."""
    for layers in (_member(root, name) for name in LAYER_GROUPS if name in root):
        for layer in layers:
            members = _member(layers, layer)
            if any(name in members for name in LAYER_GROUPS):
                raise ValueError(f"its layer '{layer}' is a model in itself, which is not read")
            variables = _member(members, "vars") if "vars" in members else ()
            for number in range(len(variables)):
                yield f"{layer}/{number}", _member(variables, str(number))


def _member(group: Any, path: str) -> Any:
    """A group or dataset in this very file: links can lead to any other file."""
    for name in path.strip("/").split("/"):
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"it has no '{path}' in '{group.name}'")
        group = group[name]
    return group


def _names(group: Any, attribute: str) -> list[str]:
    """A list of names, which Keras cuts into several attributes where it is long."""
    parts = [attribute] if attribute in group.attrs else []
    while f"{attribute}{len(parts)}" in group.attrs and parts != [attribute]:
        parts.append(f"{attribute}{len(parts)}")
    for part in parts:
        header = group.attrs.get_id(part)
        if math.prod(header.shape) * header.dtype.itemsize > MAX_ATTRIBUTE_BYTES:
            raise ValueError(f"its attribute '{part}' is too long")
    names = [name for part in parts for name in np.ravel(group.attrs[part])]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _bytes(name: str, dataset: Any) -> int:
    """What the array takes; refuses what is not an array of numbers in this file."""
    if getattr(dataset, "dtype", None) is None or dataset.dtype.kind not in "fiu":
        raise ValueError(f"its '{name}' is not an array of numbers")
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"its '{name}' lies in another file")
    # A chunk is unpacked whole, however little of it the array takes.
    return max(math.prod(dataset.shape), math.prod(dataset.chunks or ())) * dataset.dtype.itemsize


if __name__ == "__main__":
    sys.exit(main())
