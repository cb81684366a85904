"""A reader of pickles that runs nothing: the pickle machine, with a vocabulary in place of Python.

A pickle is a program that may name and call any Python function. Here a name stands for a function
of ours that makes plain records, or is refused, and nothing else is ever called. Python's own
unpickler is not used even with its names restricted: a few bytes make it allocate gigabytes for its
memo, or end the process by hashing deeply nested tuples. This machine's memory is bounded by the
length of the pickle. Its values may share their parts, so that a few bytes make a tuple that takes
forever to print, compare or hash: only those whose type is known to be plain may be.
"""

import codecs
import io
import itertools
import pickletools
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

SMALL_BYTES = 4096
OPCODES = {opcode.code.encode("latin1"): opcode for opcode in pickletools.opcodes}
SHORT_CHARACTERS = 255  # strings of Python 2 are text up to these; longer ones are values


def _read_string(stream: Any) -> str | bytes:
    """A quoted string of protocol 0."""
    line = bytes(stream.readline())
    if len(line) < 3 or line[:1] not in b"'\"" or line[-2:] != line[:1] + b"\n":
        raise ValueError("its pickle has a string without quotes")
    value = codecs.escape_decode(line[1:-2])[0]
    return value.decode("latin1") if len(value) <= SHORT_CHARACTERS else value


# pickletools makes text of the first two, which a view cannot become, and a copy of the last.
READERS: dict[str, Callable[[Any], Any]] = {
    "STRING": _read_string,
    "BINSTRING": pickletools.read_bytes4,
    "BYTEARRAY8": pickletools.read_bytes8,
}


# Instructions that push their argument. Protocol 0 has those without a prefix; of the strings of
# Python 2 SHORT_BINSTRING is text and BINSTRING a value.
PLAIN = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("STRING", "SHORT_BINSTRING", "BINSTRING"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    }
)


class RefusedGlobal(Exception):  # noqa: N818
    """The pickle names a class or function of no use here; the message is its name."""


class Reader:
    """A stream over bytes in memory whose larger pieces are views of them, not copies."""

    def __init__(self, content: memoryview):
        self._content = content
        self._place = 0

    def tell(self) -> int:
        """How many bytes have been read."""
        return self._place

    def read(self, size: int, /) -> bytes | memoryview:
        """The next bytes, as many as there are up to `size`."""
        piece = self._content[self._place : self._place + size]
        self._place += len(piece)
        return bytes(piece) if size <= SMALL_BYTES else piece

    def readline(self) -> bytes:
        """The rest of a line: a name, or the text that protocol 0 makes of bytes."""
        end = self._place
        while end < len(self._content):
            piece = bytes(self._content[end : end + SMALL_BYTES])
            found = piece.find(b"\n")
            end += len(piece) if found < 0 else found + 1
            if found >= 0:
                break
        line = bytes(self._content[self._place : end])
        self._place = end
        return line


class Name(NamedTuple):
    """A class or function that the pickle names, as `collections.OrderedDict`."""

    full: str


class Vocabulary(NamedTuple):
    """What a pickle may say."""

    calls: Mapping[str, Callable[..., Any]]  # what stands in for the functions that may be called
    build: Callable[[Any, Any], None]  # gives an object its state
    others: Collection[str] = ()  # names that may be arguments
    persistent: Callable[[Any], Any] | None = None  # what a reference to outside stands for
    max_instructions: int | None = None


def load(stream: Reader | io.BytesIO, vocabulary: Vocabulary) -> Any:
    """Read one pickle of numbers, strings, bytes, lists, tuples, dicts and what the vocabulary has.

    Raises:
        RefusedGlobal: it names anything else.
        ValueError: it is truncated, damaged, or has instructions that plain values do not need.
    """
    try:
        return _run(stream, vocabulary)
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"its pickle is inconsistent ({error})") from error


def _instructions(stream: Any, most: int | None) -> Iterator[tuple[str, Any]]:
    """What `pickletools.genops` gives, but that its longer strings and bytearrays are bytes."""
    for count in itertools.count():
        code = stream.read(1)
        if not code:
            raise ValueError("its pickle has no end")
        if most is not None and count >= most:
            raise ValueError(f"its pickle has more than {most} instructions")
        if code not in OPCODES:
            raise ValueError(f"its pickle has the instruction {code!r}, which there is not")
        opcode = OPCODES[code]
        reader = READERS.get(opcode.name, opcode.arg and opcode.arg.reader)
        yield opcode.name, reader(stream) if reader else None


def _run(stream: Reader | io.BytesIO, vocabulary: Vocabulary) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def pop_to_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for instruction, argument in _instructions(stream, vocabulary.max_instructions):
        match instruction:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                break
            case "MARK":
                marks.append(len(stack))
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[instruction])
            case plain if plain in PLAIN:
                stack.append(argument)
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                length = int(instruction[-1])
                stack[-length:] = [tuple(stack[-length:])]
            case "TUPLE":
                stack.append(tuple(pop_to_mark()))
            case "LIST":
                stack.append(pop_to_mark())
            case "DICT":
                items = pop_to_mark()
                stack.append(set_items({}, zip(items[::2], items[1::2], strict=True)))
            case "EMPTY_LIST":
                stack.append([])
            case "APPEND":
                item = stack.pop()
                require_list(stack[-1]).append(item)
            case "APPENDS":
                items = pop_to_mark()
                require_list(stack[-1]).extend(items)
            case "EMPTY_DICT":
                stack.append({})
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                set_items(require_dict(stack[-1]), [(key, value)])
            case "SETITEMS":
                items = pop_to_mark()
                set_items(require_dict(stack[-1]), zip(items[::2], items[1::2], strict=True))
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                module, name = argument.rsplit(" ", 1)
                stack.append(_name(module, name, vocabulary))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_name(module, name, vocabulary))
            case "REDUCE":
                arguments, called = require_tuple(stack.pop()), stack.pop()
                stack.append(vocabulary.calls[called.full](*arguments))
            case "BUILD":
                state = stack.pop()
                vocabulary.build(stack[-1], state)
            case "BINPERSID" if vocabulary.persistent:
                stack.append(vocabulary.persistent(stack.pop()))
            case refused:
                raise ValueError(f"its pickle has the instruction {refused}, which is not allowed")
    return stack.pop()


def _name(module: Any, name: Any, vocabulary: Vocabulary) -> Name:
    if type(module) is not str or type(name) is not str:
        raise TypeError("a name that is not a string")
    full = f"{module}.{name}"
    if full not in vocabulary.calls and full not in vocabulary.others:
        raise RefusedGlobal(full[:200])
    return Name(full)


def require_list(value: Any) -> list[Any]:
    """A value that has to be a list."""
    if type(value) is not list:
        raise TypeError(f"{type(value).__name__} in place of a list")
    return value


def require_tuple(value: Any) -> tuple[Any, ...]:
    """A value that has to be a tuple: unpacked, bytes or text would take eight times their size."""
    if type(value) is not tuple:
        raise TypeError(f"{type(value).__name__} in place of a tuple")
    return value


def require_dict(value: Any) -> dict[Any, Any]:
    """A value that has to be a dict."""
    if type(value) is not dict:
        raise TypeError(f"{type(value).__name__} in place of a dict")
    return value


def require_count(value: Any) -> int:
    """A value that has to be a number of things."""
    if type(value) is not int or value < 0:
        raise TypeError("something else in place of a size")
    return value


def set_items(target: dict[Any, Any], items: Any) -> dict[Any, Any]:
    """Put pairs into a dict; keys are strings, numbers or None."""
    for key, value in items:
        # Others are not needed, and hashing nested tuples takes time without bound.
        if not isinstance(key, str | int | float | None):
            raise TypeError(f"{type(key).__name__} as a key")
        target[key] = value
    return target
