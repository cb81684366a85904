"""Keras's files: what is read, and what hostile or damaged ones do (nothing)."""

import contextlib
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import chex
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxres.runtime.errors import InputError
from jaxres.weights import foreign, keras_layers
from tests.marked import slow
from tests.weights import keras_files

RANDOM = np.random.default_rng(0)
# In an order that is not the alphabet's; twelve variables, so that 10 comes after 9.
LAYERS = {
    "input": [],
    "conv2d": [RANDOM.standard_normal((3, 3, 3, 4)).astype(np.float32)],
    "batch_normalization": [RANDOM.standard_normal(4).astype(np.float32) for _ in range(4)],
    "add": [np.full(k + 1, k, np.float32) for k in range(12)],
}
WANTED = {f"{name}/{k}": array for name, arrays in LAYERS.items() for k, array in enumerate(arrays)}


def refusal(path: Path) -> str:
    with pytest.raises(
        InputError, match=r"cannot read the weights in .*; allowed: a state"
    ) as error:
        foreign.read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("options", [{}, {"whole_model": True}])
def test_h5_keeps_the_order_of_layers(tmp_path: Path, options: dict[str, bool]):
    found = foreign.read(keras_files.write_h5(tmp_path / "w.h5", LAYERS, **options))
    assert found.format == "keras_h5"
    assert [*found.arrays] == [*WANTED]
    chex.assert_trees_all_equal(found.arrays, WANTED, strict=True)


def test_names_that_fill_several_attributes(tmp_path: Path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        for part, layers in enumerate((["b", "c"], ["a"])):
            file.attrs[f"layer_names{part}"] = layers
            for layer in layers:
                group = file.create_group(layer)
                group.attrs["weight_names0"] = ["kernel"]
                group["kernel"] = np.ones(2, np.float32)
    assert [*foreign.read(tmp_path / "w.h5").arrays] == ["b/0", "c/0", "a/0"]


@pytest.mark.parametrize("write", [keras_files.write_weights_h5, keras_files.write_archive])
def test_files_of_keras_3(tmp_path: Path, write: Callable[..., Path]):
    found = foreign.read(write(tmp_path / "w", LAYERS))
    assert found.format == "keras_3"
    chex.assert_trees_all_equal(found.arrays, WANTED, strict=True)


def test_other_types_become_float32(tmp_path: Path):
    layers = {"a": [np.ones(2, np.float64), np.ones(2, np.float16), np.ones(2, np.int32)]}
    found = foreign.read(keras_files.write_h5(tmp_path / "w.h5", layers)).arrays
    assert [array.dtype for array in found.values()] == [np.float32, np.float32, np.int32]


def spoil(file: h5py.File, kind: str, secret: Path) -> None:
    """Replace the kernel by something that leads elsewhere or promises too much."""
    group = file["layers/conv2d/vars"]
    assert isinstance(group, h5py.Group)
    del group["0"]
    if kind == "another file":
        group["0"] = h5py.ExternalLink(str(secret), "/layers/conv2d/vars/0")
    elif kind == "raw bytes of another file":
        group.create_dataset("0", (4,), np.uint8, external=[(str(secret), 0, 4)])
    elif kind == "a virtual array":
        layout = h5py.VirtualLayout((4,), np.float32)
        layout[:] = h5py.VirtualSource(str(secret), "layers/add/vars/3", (4,), np.float32)
        group.create_virtual_dataset("0", layout)
    elif kind == "a soft link":
        group["0"] = h5py.SoftLink("/layers/add/vars/3")
    elif kind == "a huge array":
        group.create_dataset("0", (1 << 40,), np.float32, chunks=(1 << 20,))
    elif kind == "a packed array":
        group.create_dataset("0", (1 << 24,), np.float32, compression="gzip")[:] = 1
    elif kind == "a huge chunk":
        options = {"maxshape": (None,), "chunks": (1 << 24,), "compression": "gzip"}
        group.create_dataset("0", (4,), np.float32, **options)[:] = 1
    elif kind == "many times one array":
        group["0"] = np.zeros(1000, np.float32)
        for number in range(1, 100):
            group[str(number)] = group["0"]
    elif kind == "text":
        group["0"] = "text"
    elif kind == "a group":
        group.create_group("0")
    elif kind == "a gap":
        group["1"] = 1.0
    else:
        assert kind == "a model within"
        file.move("layers/add", "layers/conv2d/layers")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("another file", "it has no '0' in '/layers/conv2d/vars'"),
        ("raw bytes of another file", "its 'conv2d/0' lies in another file"),
        ("a virtual array", "its 'conv2d/0' lies in another file"),
        ("a soft link", "it has no '0' in"),
        ("a huge array", "its arrays need 4398046511"),
        ("a packed array", "its arrays need 67"),
        ("a huge chunk", "its arrays need 67"),
        ("many times one array", "its arrays need"),
        ("text", "its 'conv2d/0' is not an array of numbers"),
        ("a group", "its 'conv2d/0' is not an array of numbers"),
        ("a gap", "it has no '0' in"),
        ("a model within", "its layer 'conv2d' is a model in itself"),
    ],
)
def test_hostile_files_are_refused(tmp_path: Path, kind: str, message: str):
    path = keras_files.write_weights_h5(tmp_path / "w.weights.h5", LAYERS)
    secret = keras_files.write_weights_h5(tmp_path / "secret.h5", LAYERS)
    with h5py.File(path, "a") as file:
        spoil(file, kind, secret)
    assert message in refusal(path)


def test_a_layer_listed_but_absent_is_refused(tmp_path: Path):
    path = keras_files.write_h5(tmp_path / "w.h5", LAYERS)
    with h5py.File(path, "a") as file:
        del file["conv2d"]
    assert "it has no 'conv2d' in '/'" in refusal(path)


def test_files_without_layers_are_refused(tmp_path: Path):
    h5py.File(tmp_path / "w.h5", "w").close()
    assert "it has no layers with weights" in refusal(tmp_path / "w.h5")
    with zipfile.ZipFile(tmp_path / "w.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(1 << 20))
    assert "its member 'model.weights.h5' is compressed" in refusal(tmp_path / "w.keras")


WRITERS = {
    "h5": keras_files.write_h5,
    "weights.h5": keras_files.write_weights_h5,
    "keras": keras_files.write_archive,
}


@pytest.mark.parametrize("suffix", ["h5", slow("weights.h5"), slow("keras")])
def test_a_cut_file_is_refused(tmp_path: Path, suffix: str):
    path = WRITERS[suffix](tmp_path / f"w.{suffix}", LAYERS)
    content = path.read_bytes()
    for length in range(0, len(content), len(content) // 8):
        path.write_bytes(content[:length])
        refusal(path)


@settings(max_examples=10, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("suffix", ["keras", slow("h5"), slow("weights.h5")])
def test_a_changed_byte_is_refused_or_changes_numbers(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject
):
    path = WRITERS[suffix](tmp_path_factory.mktemp("flipped") / f"w.{suffix}", LAYERS)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        found = foreign.read(path)
        assert sum(array.nbytes for array in found.arrays.values()) <= 2 * len(content)


def test_a_reader_that_hangs_or_dies_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = keras_files.write_h5(tmp_path / "w.h5", LAYERS)
    monkeypatch.setattr(keras_layers, "SECONDS", 0.001)
    assert "reading it does not end within 0 s: it is damaged" in refusal(path)
    monkeypatch.setattr(keras_layers, "SECONDS", 60)
    dies = tmp_path / "dies"
    dies.write_text("#!/bin/sh\nkill -SEGV $$\n")
    dies.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(dies))
    assert "the HDF5 library failed (-11)" in refusal(path)


def test_a_missing_package_is_named_with_its_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = keras_files.write_h5(tmp_path / "w.h5", LAYERS)
    monkeypatch.setattr(foreign.importlib.util, "find_spec", lambda package: None)
    with pytest.raises(InputError, match=r"needs the package h5py, .*: pip install '.\[weights\]'"):
        foreign.read(path)


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras's own, of NumPy
def test_keras_files(tmp_path: Path):
    keras_step = pytest.importorskip("benchmarks.peers.keras_step", reason="keras is not installed")
    keras = keras_step.keras
    layers = [
        keras.layers.Conv2D(4, 3, name="stem"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.SeparableConv2D(5, 3, name="separable"),
        keras.layers.Conv2D(6, 3, name="last"),
        keras.layers.Flatten(),
        keras.layers.Dense(3, name="top"),
    ]
    model = keras.Sequential([keras.Input((12, 12, 3)), *layers])
    model.compile("adam", "mse")
    classes = ["conv2d", "batch_normalization", "separable_conv2d", "conv2d_1", "flatten", "dense"]
    for suffix, names in (
        ("h5", [layer.name for layer in layers]),
        ("keras", classes),
        ("weights.h5", classes),
    ):
        path = tmp_path / f"model.{suffix}"
        (model.save_weights if suffix == "weights.h5" else model.save)(path)
        wanted = {
            f"{name}/{k}": array
            for name, layer in zip(names, layers, strict=True)
            for k, array in enumerate(layer.get_weights())
        }
        chex.assert_trees_all_equal(foreign.read(path).arrays, wanted, strict=True)


def test_modules_of_the_current_folder_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = keras_files.write_weights_h5(tmp_path / "w.weights.h5", LAYERS)
    (tmp_path / "h5py.py").write_text("raise SystemExit('h5py of this folder was run')")
    monkeypatch.chdir(tmp_path)
    assert keras_layers.read(path).arrays
