"""A reader of pickles that runs nothing: just enough of the pickle machine for PyTorch state dicts.

A pickle is a program that may name and call any Python function. Here a name stands for a record
of ours or is refused, and nothing else is ever called. Python's own unpickler is not used even
with its names restricted: a few bytes make it allocate gigabytes for its memo, or end the process
by hashing deeply nested tuples. This machine's memory is bounded by the length of the pickle.
"""

import io
import math
import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple

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


class RefusedGlobal(Exception):  # noqa: N818
    """The pickle names a class or function that no state dict needs; the message is its name."""


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


class Name(NamedTuple):
    """A class or function that the pickle names, as `collections.OrderedDict`."""

    full: str


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
    try:
        return _run(stream)
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"its pickle is inconsistent ({error})") from error


def _run(stream: io.BytesIO) -> Pickle:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}
    storages: dict[str, Storage] = {}
    argument: Any

    def pop_to_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for opcode, argument, _ in pickletools.genops(stream):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return Pickle(stack.pop(), storages)
            case "MARK":
                marks.append(len(stack))
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.append(argument)
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINSTRING" | "SHORT_BINSTRING":
                stack.append(argument)
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                length = int(opcode.name[-1])
                stack[-length:] = [tuple(stack[-length:])]
            case "TUPLE":
                stack.append(tuple(pop_to_mark()))
            case "EMPTY_LIST":
                stack.append([])
            case "APPEND":
                item = stack.pop()
                _list(stack[-1]).append(item)
            case "APPENDS":
                items = pop_to_mark()
                _list(stack[-1]).extend(items)
            case "EMPTY_DICT":
                stack.append({})
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _set_items(_dict(stack[-1]), [(key, value)])
            case "SETITEMS":
                items = pop_to_mark()
                _set_items(_dict(stack[-1]), zip(items[::2], items[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_name(*argument.rsplit(" ", 1)))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_name(module, name))
            case "REDUCE":
                arguments, called = stack.pop(), stack.pop()
                stack.append(CALLS[called.full](*arguments))
            case "BUILD":
                stack.pop()  # attributes: in an OrderedDict torch keeps version numbers there
                _dict(stack[-1])
            case "BINPERSID":
                storage = _storage(*stack.pop())
                stack.append(storages.setdefault(storage.key, storage))
            case refused:
                raise ValueError(f"its pickle has the instruction {refused}, which is not allowed")
    raise ValueError("its pickle has no end")


def _name(module: Any, name: Any) -> Name:
    if type(module) is not str or type(name) is not str:
        raise TypeError("a name that is no string")
    full = f"{module}.{name}"
    if full not in CALLS and full not in STORAGE_DTYPES:
        raise RefusedGlobal(full[:200])
    return Name(full)


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise TypeError(f"{type(value).__name__} in place of a list")
    return value


def _dict(value: Any) -> dict[Any, Any]:
    if type(value) is not dict:
        raise TypeError(f"{type(value).__name__} in place of a dict")
    return value


def _set_items(target: dict[Any, Any], items: Any) -> dict[Any, Any]:
    for key, value in items:
        # Others are not needed, and hashing nested tuples takes time without bound.
        if not isinstance(key, str | int | float | None):
            raise TypeError(f"{type(key).__name__} as a key")
        target[key] = value
    return target


def _new_dict(items: Any = None) -> dict[Any, Any]:
    """An OrderedDict of Python 3 (filled later) or of Python 2 (made of pairs), or a Counter."""
    if type(items) is dict:
        return items
    made = _set_items({}, items or ())
    if items:
        _list(items).clear()  # a list remembered and read again would cost more than its length
    return made


def _size(sizes: Any) -> tuple[Any, ...]:
    if type(sizes) is not tuple:
        raise TypeError(f"{type(sizes).__name__} in place of a tuple")
    return sizes


def _storage(kind: Any, name: Any, key: Any, device: Any, size: Any, view: Any = None) -> Storage:
    if kind != "storage" or type(key) is not str or view is not None:
        raise TypeError("a reference to something other than a storage")
    return Storage(key, STORAGE_DTYPES[name.full], _count(size))


def _tensor(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    requires_grad: Any = None,
    hooks: Any = None,
    metadata: Any = None,
) -> Tensor:
    if type(storage) is not Storage or len(_size(shape)) > MAX_DIMENSIONS:
        raise TypeError(f"a tensor without storage, or of more than {MAX_DIMENSIONS} dimensions")
    tensor = Tensor(storage, _count(offset), shape, strides)
    spans = zip(map(_count, shape), map(_count, _size(strides)), strict=True)
    last = tensor.offset + sum((size - 1) * stride for size, stride in spans)
    # Strides of zero would let a few bytes stand for any number of elements.
    if math.prod(shape) > storage.size or (0 not in shape and last >= storage.size):
        raise ValueError(f"a tensor of shape {shape} does not fit its {storage.size} elements")
    return tensor


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError("something else in place of a size")
    return value


def _parameter(tensor: Any, requires_grad: Any, hooks: Any) -> Tensor:
    if type(tensor) is not Tensor:
        raise TypeError(f"{type(tensor).__name__} in place of a tensor")
    return tensor


CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _new_dict,
    "collections.Counter": _new_dict,  # in the state of learning-rate schedules
    "torch.Size": _size,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}
