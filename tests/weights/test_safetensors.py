import json
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save

from jaxres.runtime.errors import InputError
from jaxres.weights import foreign

ARRAYS = {
    "module.conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "module.bn.num_batches_tracked": np.array(3),
    "module.half": np.arange(3, dtype=np.float16),
    "module.double": np.arange(3, dtype=np.float64),
}


def framed(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def entry(dtype: str, shape: list[int], start: int, end: int) -> bytes:
    return json.dumps(
        {"a": {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}}
    ).encode()


def test_tensors_are_read_and_floats_become_float32(tmp_path: Path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(save(ARRAYS))
    found = foreign.read(path)
    assert found.format == "safetensors"
    assert found.arrays.keys() == {name.removeprefix("module.") for name in ARRAYS}
    for name, array in ARRAYS.items():
        read = found.arrays[name.removeprefix("module.")]
        assert read.dtype == (np.float32 if array.dtype.kind == "f" else array.dtype)
        np.testing.assert_array_equal(read, array)


def test_bfloat16_becomes_float32(tmp_path: Path):
    values = np.array([[1.5, -2.0]], ml_dtypes.bfloat16)
    path = tmp_path / "w.safetensors"
    path.write_bytes(framed(entry("BF16", [1, 2], 0, 4), values.tobytes()))
    read = foreign.read(path).arrays["a"]
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, [[1.5, -2.0]])


@pytest.mark.parametrize(
    "content",
    [
        save(ARRAYS)[:-1],
        save(ARRAYS)[:60],
        save(ARRAYS) + b"x",
        framed(entry("F32", [1], 0, 4)),
        framed(entry("F32", [1 << 60], 0, 4), bytes(4)),
        framed(entry("F32", [1], -4, 0), bytes(4)),
        framed(entry("F32", [2], 0, 4), bytes(4)),
        framed(entry("F8_E4M3", [4], 0, 4), bytes(4)),
        framed(b"{}"),
        framed(b"{", length=1 << 60),
        framed(b"{" * 50_000),
        framed(b'{"a": 1}'),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=r"cannot read the weights in .*; allowed: a state"
    ) as error:
        foreign.read(path)
    assert str(path) in str(error.value)


def test_a_missing_package_is_named_with_its_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "w.safetensors"
    path.write_bytes(save(ARRAYS))
    monkeypatch.setattr(foreign.importlib.util, "find_spec", lambda package: None)
    with pytest.raises(InputError, match=r"needs the package safetensors, .*: pip install '.\[w"):
        foreign.read(path)
