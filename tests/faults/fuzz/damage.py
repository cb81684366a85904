"""Strategies of damage: to bytes, to JSON, and to folders of files."""

import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

from tests.faults.fuzz.trees import Entry, Folder, Link, Pipe, Tree

HEAD_BYTES = 512
NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**40, 2**63 - 1)
FORMATS = ("<B", "<H", ">H", "<I", ">I", "<Q", ">Q")
TEXTS = ("", "a", "\0", "\ud800", "..", "/", "1e999", "nan", "-1", "9" * 5000, "x" * 300, "é\n")


@st.composite
def damaged(draw: st.DrawFn, valid: bytes, others: Sequence[bytes] = ()) -> bytes:
    """The bytes of a valid file with one to three mishaps; `others` lend them pieces."""
    content = valid
    for _ in range(draw(st.integers(1, 3))):
        content = draw(st.sampled_from(MISHAPS))(draw, content, others)
    return content


def _place(draw: st.DrawFn, content: bytes) -> int:
    """A place in the content, often near its ends, where the headers and directories are."""
    size = len(content)
    near = draw(st.sampled_from(("head", "tail", "anywhere")))
    if near == "head":
        return draw(st.integers(0, min(size, HEAD_BYTES)))
    return draw(st.integers(max(0, size - HEAD_BYTES) if near == "tail" else 0, size))


def _span(draw: st.DrawFn, content: bytes) -> tuple[int, int]:
    first = _place(draw, content)
    return first, min(len(content), first + draw(st.sampled_from((1, 2, 4, 16, 100, 1000))))


def _cut(draw: st.DrawFn, content: bytes, others: Sequence[bytes]) -> bytes:
    return content[: _place(draw, content)]


def _flip(draw: st.DrawFn, content: bytes, others: Sequence[bytes]) -> bytes:
    if not content:
        return content
    place = min(_place(draw, content), len(content) - 1)
    flipped = content[place] ^ (1 << draw(st.integers(0, 7)))
    return content[:place] + bytes([flipped]) + content[place + 1 :]


def _number(draw: st.DrawFn, content: bytes, others: Sequence[bytes]) -> bytes:
    place, layout = _place(draw, content), draw(st.sampled_from(FORMATS))
    size = struct.calcsize(layout)
    written = struct.pack(layout, draw(st.sampled_from(NUMBERS)) % 2 ** (8 * size))
    return content[:place] + written + content[place + size :]


def _insert(draw: st.DrawFn, content: bytes, others: Sequence[bytes]) -> bytes:
    place = _place(draw, content)
    return content[:place] + draw(st.binary(max_size=40)) + content[place:]


def _remove(draw: st.DrawFn, content: bytes, others: Sequence[bytes]) -> bytes:
    first, after = _span(draw, content)
    return content[:first] + content[after:]


def _repeat(draw: st.DrawFn, content: bytes, others: Sequence[bytes]) -> bytes:
    first, after = _span(draw, content)
    return content[:after] + content[first:after] * draw(st.integers(1, 3)) + content[after:]


def _zero(draw: st.DrawFn, content: bytes, others: Sequence[bytes]) -> bytes:
    first, after = _span(draw, content)
    filled = draw(st.sampled_from((b"\0", b"\xff", b"9"))) * (after - first)
    return content[:first] + filled + content[after:]


def _splice(draw: st.DrawFn, content: bytes, others: Sequence[bytes]) -> bytes:
    other = draw(st.sampled_from(others)) if others else content
    first, after = _span(draw, other)
    place = _place(draw, content)
    return content[:place] + other[first:after] + content[place + after - first :]


def _replace(draw: st.DrawFn, content: bytes, others: Sequence[bytes]) -> bytes:
    made = st.one_of(st.binary(max_size=200), st.just(b""), st.just(b"\0" * 4096))
    return draw(st.one_of(made, st.sampled_from(others)) if others else made)


Mishap = Callable[[st.DrawFn, bytes, Sequence[bytes]], bytes]
MISHAPS: tuple[Mishap, ...] = (
    *(_cut, _flip, _flip, _number, _number, _insert),
    *(_remove, _repeat, _zero, _splice, _replace),
)


def junk() -> st.SearchStrategy[Any]:
    """Values that JSON can hold and nobody expects."""
    numbers = st.sampled_from((0, -1, 1, 2**31, 2**63, 10**30, 1.5, float("nan"), float("inf")))
    plain = st.one_of(
        st.none(), st.booleans(), numbers, st.sampled_from(TEXTS), st.text(max_size=8)
    )
    return st.recursive(
        plain,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
        ),
        max_leaves=6,
    )


@st.composite
def damaged_json(draw: st.DrawFn, valid: bytes) -> bytes:
    """JSON text with a value, a key or its nesting changed, or damaged as any bytes."""
    how = draw(st.sampled_from(("values", "values", "values", "bytes", "deep", "digits")))
    if how == "bytes":
        return draw(damaged(valid))
    if how == "deep":
        depth = draw(st.sampled_from((100, 5_000, 200_000)))
        return b"[" * depth + b"]" * depth
    if how == "digits":
        return b'{"step": ' + b"9" * 5000 + b"}"
    value = json.loads(valid)
    for _ in range(draw(st.integers(1, 3))):
        value = changed(draw, value)
    return json.dumps(value).encode("utf-8", errors="surrogatepass")


def changed(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value of which one part is another, gone, doubled or under another name."""
    if isinstance(value, dict | list) and value and draw(st.integers(0, 4)):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = draw(st.sampled_from(keys))
        entries: dict[Any, Any] = dict(value if isinstance(value, dict) else enumerate(value))
        match draw(st.sampled_from(("within", "within", "within", "remove", "double", "rename"))):
            case "within":
                entries[key] = changed(draw, entries[key])
            case "remove":
                del entries[key]
            case "double":
                entries[f"{key}_" if isinstance(value, dict) else len(value)] = entries[key]
            case "rename":
                entries[draw(st.text(max_size=6))] = entries.pop(key)
        return entries if isinstance(value, dict) else list(entries.values())
    return draw(junk())


@st.composite
def damaged_tree(
    draw: st.DrawFn, valid: dict[str, bytes], only: Callable[[str], bool] = lambda name: True
) -> Tree:
    """A folder in which something happened to one or two files, of those that `only` allows."""
    tree: dict[str, Entry] = dict(valid)
    candidates = [name for name in valid if only(name)]
    for _ in range(draw(st.integers(1, 2))):
        name = draw(st.sampled_from(candidates))
        other = draw(st.sampled_from(candidates))
        content = valid[name]
        match draw(st.sampled_from(TREE_MISHAPS)):
            case "damage":
                tree[name] = draw(damaged(content, (valid[other],)))
            case "json":
                is_json = content.lstrip()[:1] == b"{"
                tree[name] = draw((damaged_json if is_json else damaged)(content))
            case "remove":
                tree.pop(name, None)
            case "swap":
                tree[name], tree[other] = valid[other], content
            case "double":
                tree[f"{name}{draw(st.sampled_from(('2', '.gz', '.tmp', ' ')))}"] = content
            case "replace":
                loop = Link(name.rpartition("/")[2])
                kinds = (Folder(), Pipe(), loop, Link("/dev/zero"), Link("nowhere"), b"")
                tree[name] = draw(st.sampled_from(kinds))
    return tree


TREE_MISHAPS = (*("damage",) * 5, *("json",) * 3, "remove", "swap", "double", "replace")
