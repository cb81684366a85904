"""Files as Keras writes them, made with h5py: Keras is not needed."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

# A layer's arrays by its name: in a `.h5` file its own, else that of its class, numbered.
Layers = Mapping[str, Sequence[np.ndarray]]


def write_h5(path: Path, layers: Layers, *, whole_model: bool = False) -> Path:
    """Layers under their own names, listed in their order."""
    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights") if whole_model else file
        group.attrs["layer_names"] = [name.encode() for name in layers]
        for layer, arrays in sorted(layers.items()):
            members = group.create_group(layer)
            weights = [f"{layer}/weight_{k}:0" for k in range(len(arrays))]
            members.attrs["weight_names"] = [weight.encode() for weight in weights]
            for weight, array in zip(weights, arrays, strict=True):
                members[weight] = array
    return path


def fill_weights_h5(file: Any, layers: Layers) -> None:
    for layer, arrays in layers.items():
        group = file.create_group(f"layers/{layer}/vars")
        for number, array in enumerate(arrays):
            group[str(number)] = array
    file.create_group("optimizer/vars")["0"] = 5


def write_weights_h5(path: Path, layers: Layers) -> Path:
    with h5py.File(path, "w") as file:
        fill_weights_h5(file, layers)
    return path


def write_archive(path: Path, layers: Layers) -> Path:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        fill_weights_h5(file, layers)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", "this is never looked at")
        archive.writestr("model.weights.h5", content.getvalue())
    return path
