"""Weight files of other libraries, told apart by what they begin with."""

import importlib.util
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import ml_dtypes
import numpy as np

from jaxres.data.readers.pickled import RefusedGlobal
from jaxres.runtime.errors import InputError, brief
from jaxres.runtime.files import taken_for_the_file
from jaxres.weights import keras_layers, pytorch

ALLOWED = (
    "allowed: a state dict of PyTorch (.pth, .pt, .th), .safetensors, "
    "or weights of Keras (.h5, .weights.h5, .keras)"
)
HEAD_BYTES = 512
MOST_NAMED = 5
ZIP_MAGIC = b"PK\x03\x04"
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
# What wrappers put before the names of the network that they hold.
PREFIXES = ("module.", "_orig_mod.", "model.", "net.")
SAFETENSORS_DTYPES = {
    "F64": np.dtype("float64"),
    "F32": np.dtype("float32"),
    "F16": np.dtype("float16"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("int64"),
    "I32": np.dtype("int32"),
}


class Foreign(NamedTuple):
    """Weights under the names of the library that wrote them; those with fractions are float32.

    Keras's names are those of `keras_layers.Layers`, named (`keras_h5`) or not (`keras_3`); the
    others' those of a state dict.
    """

    format: Literal["pytorch", "safetensors", "keras_h5", "keras_3"]
    arrays: dict[str, np.ndarray]
    notes: tuple[str, ...] = ()  # what of the file was chosen, and what left out


def read(path: Path, key: str | None = None) -> Foreign:
    """Read a weight file; nothing that is in it is run.

    Of several networks in a file of PyTorch, `key` names the entry of the one to take.

    Raises:
        InputError: it is none, is damaged, or holds more than weights; or a package is missing.
    """
    if not path.is_file():
        raise InputError(f"no file '{path}'; {ALLOWED}")
    try:
        found = _read(path, key)
    except InputError:
        raise
    except RefusedGlobal as refused:
        raise InputError(
            f"'{path}' holds the Python object {str(refused)!r}, which is not read since it could "
            "run code; allowed: weights alone, as torch.save(model.state_dict(), FILE) writes them"
        ) from None
    # zipfile, HDF5 and safetensors raise whatever their layers met.
    except Exception as error:
        detail = brief(error)
        raise InputError(f"cannot read the weights in '{path}': {detail}; {ALLOWED}") from error
    return found._replace(arrays={name: _float32(a) for name, a in found.arrays.items()})


def _read(path: Path, key: str | None) -> Foreign:
    with path.open("rb") as file:
        start = file.read(HEAD_BYTES)
    if instead := taken_for_the_file(start):
        raise ValueError(instead)
    head = start[: len(pytorch.STREAM_MAGIC)]
    if head == pytorch.STREAM_MAGIC:
        return _of_network("pytorch", *pytorch.read_stream(path, key))
    is_zip = head.startswith(ZIP_MAGIC)
    if head.startswith(HDF5_MAGIC) or (is_zip and _has_member(path, keras_layers.ARCHIVE_MEMBER)):
        _require_package("h5py", path)
        layers = keras_layers.read(path)
        if key is not None:
            raise InputError("--key applies to PyTorch files; a Keras file holds one network")
        return Foreign("keras_h5" if layers.named else "keras_3", layers.arrays)
    if is_zip:
        return _of_network("pytorch", *pytorch.read_zip(path, key))
    if head[8:9] == b"{":  # the header's length comes first, then its JSON
        _require_package("safetensors", path)
        return _of_network("safetensors", _read_safetensors(path))
    kind = "a pickle of no torch.save" if head.startswith(b"\x80") else "of another format"
    raise ValueError(f"it is {kind if head else 'empty'}")


def _has_member(path: Path, name: str) -> bool:
    with zipfile.ZipFile(path) as archive:
        return name in archive.namelist()


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    import safetensors

    return {
        name: np.frombuffer(tensor["data"], SAFETENSORS_DTYPES[tensor["dtype"]]).reshape(
            tensor["shape"]
        )
        for name, tensor in safetensors.deserialize(path.read_bytes())
    }


def _require_package(name: str, path: Path) -> None:
    if importlib.util.find_spec(name) is None:
        raise InputError(
            f"reading '{path}' needs the package {name}, which is not installed: "
            "pip install '.[weights]'"
        )


def _of_network(
    format_: Literal["pytorch", "safetensors"],
    arrays: dict[str, np.ndarray],
    notes: tuple[str, ...] = (),
) -> Foreign:
    """Names as the network itself has them; the count that torch's averaging adds is dropped.

    Where most of the names have a wrapper's prefix, the others are of something beside the network,
    as a loss with weights of its own.
    """
    arrays = {name: array for name, array in arrays.items() if name != "n_averaged"}
    if not arrays:
        raise ValueError("it has no weights")
    for _ in range(len(PREFIXES)):  # each once; a hostile name may repeat them without end
        within = {p: [n for n in arrays if n.startswith(p)] for p in PREFIXES}
        prefix = max(within, key=lambda each: len(within[each]))
        if 2 * len(within[prefix]) <= len(arrays):
            break
        others = [name for name in arrays if not name.startswith(prefix)]
        if others:
            notes += (f"left out, for they are not under '{prefix}': {some(others, MOST_NAMED)}",)
        arrays = {name.removeprefix(prefix): arrays[name] for name in within[prefix]}
    return Foreign(format_, arrays, notes)


def some(names: Sequence[str], most: int) -> str:
    """The first names of a file, as a sentence can hold them, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name)[1:-1][:80] for name in names[:most]) + more


def _float32(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "f" or array.dtype == ml_dtypes.bfloat16:
        with np.errstate(over="ignore"):  # a float64 beyond float32 is infinite
            return array.astype(np.float32, copy=False)
    return array
