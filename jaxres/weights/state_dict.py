"""What the pickles of PyTorch's state dicts may say: tensors become records, and nothing is run."""

import io
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxres.data.readers import pickled
from jaxres.data.readers.pickled import (
    Vocabulary,
    require_count,
    require_dict,
    require_list,
    require_tuple,
    set_items,
)

MAX_DIMENSIONS = 8

# NumPy's names (and ml_dtypes' bfloat16) by torch's names of typed storages.
STORAGE_DTYPES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}


class Storage(NamedTuple):
    """A flat array that lies elsewhere in the file; `size` counts elements."""

    key: str
    dtype: str
    size: int


class Tensor(NamedTuple):
    """A view of a storage; `offset` and `strides` count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Pickle(NamedTuple):
    """A pickle's value, with tensors as records, and every storage that it refers to, by key."""

    value: Any
    storages: dict[str, Storage]


def load(stream: io.BytesIO) -> Pickle:
    """Read one pickle of numbers, strings, lists, tuples, dicts and tensors.

    Raises:
        RefusedGlobal: it names anything but what a state dict consists of.
        ValueError: it is truncated, damaged, or has instructions that no state dict needs.
    """
    storages: dict[str, Storage] = {}

    def persistent(reference: Any) -> Storage:
        storage = _storage(*require_tuple(reference))
        return storages.setdefault(storage.key, storage)

    vocabulary = Vocabulary(CALLS, _build, others=STORAGE_DTYPES, persistent=persistent)
    return Pickle(pickled.load(stream, vocabulary), storages)


def _build(made: Any, state: Any) -> None:
    del state  # attributes: in an OrderedDict torch keeps version numbers there
    require_dict(made)


def _new_dict(items: Any = None) -> dict[Any, Any]:
    """An OrderedDict of Python 3 (filled later) or of Python 2 (made of pairs), or a Counter."""
    if type(items) is dict:
        return items
    made = set_items({}, items or ())
    if items:
        require_list(items).clear()  # remembered and read again, it would cost more than its length
    return made


def _storage(kind: Any, name: Any, key: Any, device: Any, size: Any, view: Any = None) -> Storage:
    if kind != "storage" or type(key) is not str or view is not None:
        raise TypeError("a reference to something other than a storage")
    return Storage(key, STORAGE_DTYPES[name.full], require_count(size))


def _tensor(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    requires_grad: Any = None,
    hooks: Any = None,
    metadata: Any = None,
) -> Tensor:
    if type(storage) is not Storage or len(require_tuple(shape)) > MAX_DIMENSIONS:
        raise TypeError(f"a tensor without storage, or of more than {MAX_DIMENSIONS} dimensions")
    tensor = Tensor(storage, require_count(offset), shape, strides)
    spans = zip(map(require_count, shape), map(require_count, require_tuple(strides)), strict=True)
    last = tensor.offset + sum((size - 1) * stride for size, stride in spans)
    # Strides of zero would let a few bytes stand for any number of elements.
    if math.prod(shape) > storage.size or (0 not in shape and last >= storage.size):
        raise ValueError(f"a tensor of shape {shape} does not fit its {storage.size} elements")
    return tensor


def _parameter(tensor: Any, requires_grad: Any, hooks: Any) -> Tensor:
    if type(tensor) is not Tensor:
        raise TypeError(f"{type(tensor).__name__} in place of a tensor")
    return tensor


CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _new_dict,
    "collections.Counter": _new_dict,  # in the state of learning-rate schedules
    "torch.Size": require_tuple,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}
