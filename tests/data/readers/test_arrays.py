"""Array files: what is read, and what a hostile or damaged one does (nothing)."""

import bz2
import contextlib
import gzip
import io
import lzma
import os
import pickle
import signal
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxres.data.readers import arrays
from jaxres.runtime.errors import InputError

ARRAY = np.random.default_rng(0).integers(0, 256, (3, 4, 5), dtype=np.uint8)
# Of more bytes than the reader copies.
LARGE = np.random.default_rng(1).integers(0, 256, (2, 128, 128), dtype=np.uint8)
PROTOCOLS = [0, 1, 2, 3, 4, 5]


def npy(array: np.ndarray, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def zipped(*contents: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for number, content in enumerate(contents):
            archive.writestr(f"array{number}", content)
    return stream.getvalue()


def read(folder: Path, content: bytes) -> np.ndarray:
    path = folder / "array"
    path.write_bytes(content)
    return arrays.read(path)


def refusal(folder: Path, content: bytes) -> str:
    with pytest.raises(InputError) as error:
        read(folder, content)
    message = str(error.value)
    assert str(folder / "array") in message
    assert "allowed: one array of numbers" in message
    assert "\n" not in message
    assert len(message) < 700
    return message


FORMS: dict[str, Callable[[np.ndarray], bytes]] = {
    ".npy": npy,
    **{f"protocol {k}": lambda a, k=k: pickle.dumps(a, k) for k in PROTOCOLS},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["u1", "<i2", ">u4", "<i8", "<f2", "<f4", ">f4", "<f8"])
def test_every_type_in_every_form(tmp_path: Path, form: str, dtype: str):
    found = read(tmp_path, FORMS[form](ARRAY.astype(dtype)))
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found, ARRAY)
    assert not found.flags.writeable


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("how", ["fortran", "transposed", "scalar", "row", "read-only"])
def test_every_layout_in_every_form(tmp_path: Path, form: str, how: str):
    array = {
        "fortran": np.asfortranarray(ARRAY),
        "transposed": ARRAY.transpose(1, 0, 2),
        "scalar": np.array(7.0),
        "row": np.arange(300),
        "read-only": ARRAY.copy(),
    }[how]
    array.flags.writeable = how != "read-only"
    found = read(tmp_path, FORMS[form](array))
    assert found.shape == array.shape
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("protocol", "module"), [(2, "multiarray"), (3, "multiarray"), (5, "numeric")]
)
def test_the_names_of_numpy_1(tmp_path: Path, protocol: int, module: str):
    new, old = f"numpy._core.{module}".encode(), f"numpy.core.{module}".encode()
    content = pickle.dumps(ARRAY, protocol)
    assert new in content
    if protocol == 5:  # a length comes before
        new, old = bytes([len(new)]) + new, bytes([len(old)]) + old
    np.testing.assert_array_equal(read(tmp_path, content.replace(new, old)), ARRAY)


def python_2(array: np.ndarray) -> bytes:
    """A pickle of an array of bytes as Python 2 writes it."""
    form, size = ("<B", b"U") if array.size < 256 else ("<i", b"T")
    values = size + struct.pack(form, array.size) + array.tobytes()
    minus_1 = b"J\xff\xff\xff\xff"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN" + minus_1 * 2 + b"K\x00tb"
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    shape = b"".join(b"M" + struct.pack("<H", side) for side in array.shape) + b"\x87"
    return b"\x80\x02" + made + b"(K\x01" + shape + dtype + b"\x89" + values + b"tb."


@pytest.mark.parametrize("array", [ARRAY, LARGE[:1, :2], LARGE], ids=["60", "256", "32768"])
def test_a_pickle_of_python_2(tmp_path: Path, array: np.ndarray):
    content = python_2(array)
    np.testing.assert_array_equal(pickle.loads(content, encoding="latin1"), array)
    np.testing.assert_array_equal(read(tmp_path, content), array)


def python_2_text(array: np.ndarray) -> bytes:
    """The same in protocol 0, in which all is text."""
    quoted = repr(array.tobytes())[1:].encode()
    dtype = b"cnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntb"
    made = b"cnumpy.core.multiarray\n_reconstruct\np0\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    shape = b"(" + b"".join(b"L%dL\n" % side for side in array.shape) + b"t"
    return made + b"(I1\n" + shape + dtype + b"I00\nS" + quoted + b"\ntb."


@pytest.mark.parametrize("array", [ARRAY, LARGE[:1, :2], LARGE], ids=["60", "256", "32768"])
def test_a_pickle_of_python_2_in_text(tmp_path: Path, array: np.ndarray):
    content = python_2_text(array)
    np.testing.assert_array_equal(pickle.loads(content, encoding="latin1"), array)
    np.testing.assert_array_equal(read(tmp_path, content), array)


def test_what_macos_adds_to_a_zip_is_no_file_of_its_own(tmp_path: Path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/", b"")
        archive.writestr("folder/train.npy", npy(ARRAY))
        archive.writestr("__MACOSX/folder/._train.npy", b"\0\5\x16\7")
    np.testing.assert_array_equal(read(tmp_path, stream.getvalue()), ARRAY)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray])
def test_large_arrays_in_every_form(tmp_path: Path, form: str, layout: Callable):
    found = read(tmp_path, FORMS[form](layout(LARGE)))
    np.testing.assert_array_equal(found, LARGE)
    assert not found.flags.writeable


@pytest.mark.parametrize("form", [".npy", "protocol 3", "protocol 4", "protocol 5", "Python 2"])
def test_values_stay_in_the_file(tmp_path: Path, form: str):
    path = tmp_path / "array"
    path.write_bytes({**FORMS, "Python 2": python_2}[form](np.tile(LARGE, (100, 1, 1))))
    tracemalloc.start()
    try:
        found = arrays.read(path)
        assert tracemalloc.get_traced_memory()[1] < found.nbytes / 2
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zipped])
@pytest.mark.parametrize("form", [".npy", "protocol 4"])
def test_packed_files(tmp_path: Path, pack: Callable[[bytes], bytes], form: str, monkeypatch):
    content = pack(FORMS[form](ARRAY))
    np.testing.assert_array_equal(read(tmp_path, content), ARRAY)
    assert "cannot read the array in" in refusal(tmp_path, content[: len(content) // 2])
    monkeypatch.setattr(arrays, "MAX_UNPACKED_BYTES", ARRAY.size)
    assert "unpacks to more than 60 bytes: unpack it first" in refusal(tmp_path, content)


def test_a_zip_of_several_files_is_refused(tmp_path: Path):
    assert "it is a zip of 2 files in place of one" in refusal(tmp_path, zipped(npy(ARRAY), b""))


def test_a_zip_holds_a_stored_or_deflated_file(tmp_path: Path):
    stored = zipped(npy(ARRAY), method=zipfile.ZIP_STORED)
    np.testing.assert_array_equal(read(tmp_path, stored), ARRAY)
    for method in (zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2):
        message = refusal(tmp_path, zipped(npy(ARRAY), method=method))
        assert "it is a zip of a file that is neither stored nor deflated" in message


def test_xz_may_not_ask_for_the_memory_it_likes(tmp_path: Path):
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 29}]
    content = lzma.compress(npy(ARRAY), filters=filters)
    assert "Memory usage limit exceeded" in refusal(tmp_path, content)


class Harm:
    """Creates a file where it is unpickled."""

    def __init__(self, function: Callable[..., Any], argument: str):
        self.call = (function, (argument,))

    def __reduce__(self) -> tuple:
        return self.call


def harmful(made: Path, kind: str, protocol: int) -> bytes:
    """A pickle that would create a file."""
    write = f"open({str(made)!r}, 'w').close()"
    system = Harm(os.system, f"touch {made}")
    nested = np.empty(2, object)
    nested[:] = [ARRAY, system]
    value: Any = {
        "posix.system": system,
        "builtins.eval": Harm(eval, write),
        "in a list": [ARRAY, Harm(exec, write)],
        "in a dict": {"a": ARRAY, "b": system},
        "in an array of objects": nested,
        "before the array": (system, ARRAY),
    }[kind]
    return pickle.dumps(value, protocol)


KINDS = {
    "posix.system": "posix.system",
    "builtins.eval": "eval'",
    "in a list": "exec'",
    "in a dict": "posix.system",
    "in an array of objects": "its values are of type 'O8'",
    "before the array": "posix.system",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("protocol", PROTOCOLS[2:])
def test_nothing_is_run(tmp_path: Path, kind: str, protocol: int):
    made = tmp_path / "made"
    content = harmful(made, kind, protocol)
    message = refusal(tmp_path, content)
    assert not made.exists()
    assert KINDS[kind] in message
    if "O8" not in message:
        assert "holds the Python object '" in message
        assert "which is not read since it could run code" in message
    pickle.loads(content)  # so that this test can fail
    assert made.exists()


def test_objects_in_npy_are_refused(tmp_path: Path):
    made = tmp_path / "made"
    array = np.empty(1, object)
    array[0] = Harm(os.system, f"touch {made}")
    content = npy(array, allow_pickle=True)
    assert "its values are of type '|O'" in refusal(tmp_path, content)
    assert not made.exists()
    np.load(io.BytesIO(content), allow_pickle=True)
    assert made.exists()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["S4", "U2", "?", "c8", "M8[s]", [("a", "u1"), ("b", "f4")]])
def test_other_types_are_refused(tmp_path: Path, form: str, dtype: Any):
    with np.errstate(all="ignore"):
        message = refusal(tmp_path, FORMS[form](np.zeros((2, 2), dtype)))
    assert "its values are of type" in message


def array_pickle(shape: bytes, content: bytes, code: bytes = b"u1", state: bytes = b"NNN") -> bytes:
    """A pickle of an array assembled by hand; `shape` and `content` are instructions."""
    dtype = b"cnumpy\ndtype\nU" + bytes([len(code)]) + code + b"\x89\x88\x87R(K\x03U\x01|" + state
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    return b"\x80\x02" + made + b"(K\x01" + shape + dtype + b"tb\x89" + content + b"tb."


def count(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def shared_type(levels: int) -> bytes:
    """A type whose name is a tuple of three times the same tuple of three times the same ..."""
    nested = b"".join(b"q" + bytes([k]) + (b"h" + bytes([k])) * 2 + b"\x87" for k in range(levels))
    return b"\x80\x02cnumpy\ndtype\nK\x01" + nested + b"\x89\x88\x87R."


def repeated(function: bytes, arguments: bytes) -> bytes:
    """A call made 60 times with the same arguments."""
    return b"\x80\x02c" + function + b"q\x00" + arguments + b"q\x01" + b"h\x00h\x01R" * 60 + b"N."


HUGE = struct.pack("<Q", 1 << 62)
LONG = b"X" + struct.pack("<i", 2 << 20) + b"a" * (2 << 20)
FOUR = b"C\x04abcd"
DTYPE = b"cnumpy\ndtype\nU\x02u1\x89\x88\x87R"
HOSTILE = {
    "a huge shape": (array_pickle(count(1 << 50) + b"\x85", FOUR), "needs 1125899906842624 bytes"),
    "sizes that overflow": (array_pickle(count(1 << 62) * 3 + b"\x87", FOUR), "bytes, it has 4"),
    "a size below 0": (array_pickle(count(-4) + b"\x85", FOUR), "in place of a size"),
    "a shape of text": (array_pickle(b"U\x01a\x85", FOUR), "in place of a size"),
    "no shape": (array_pickle(b"K\x04", FOUR), "no shape of at most 8 dimensions"),
    "many dimensions": (array_pickle(b"(" + b"K\x01" * 9 + b"t", FOUR), "at most 8 dimensions"),
    "fewer values": (array_pickle(b"K\x05\x85", FOUR), "its shape (5,) needs 5 bytes, it has 4"),
    "more values": (array_pickle(b"K\x03\x85", FOUR), "its shape (3,) needs 3 bytes, it has 4"),
    "values of numbers": (array_pickle(b"K\x04\x85", b"K\x04"), "int in place of bytes"),
    "fields": (array_pickle(b"K\x04\x85", FOUR, state=b"K\x01NN"), "a type of several fields"),
    "a long type": (array_pickle(b"K\x04\x85", FOUR, code=b"V" * 200), "of type 'VVVVVVVVVVVVVVV"),
    "a type of shared tuples": (shared_type(48), "tuple in place of a type's name"),
    "a state of text": (b"\x80\x02" + DTYPE + LONG + b"b.", "str in place of a tuple"),
    "arguments of text": (b"\x80\x02cnumpy\ndtype\n" + LONG + b"R.", "str in place of a tuple"),
    "a long order": (pickle.dumps(ARRAY, 5).replace(b"\x8c\x01C", LONG), "no order of axes"),
    "a text encoded often": (repeated(b"_codecs\nencode\n", LONG + b"U\x06latin1\x86"),
                             "other than an array"),
    "arrays of a text": (repeated(b"numpy.core.numeric\n_frombuffer\n",
                                  b"(" + LONG + DTYPE + b"J" + struct.pack("<i", 2 << 20)
                                  + b"\x85U\x01Ct"), "other than an array"),
    "values of no type": (array_pickle(b"K\x04\x85", FOUR)
                          .replace(DTYPE + b"(K\x03U\x01|NNNtb", b"N"), "NoneType in place"),
    "huge bytes": (b"\x80\x04\x8e" + HUGE + b".", "expected 4611686018427387904 bytes"),
    "a huge bytearray": (b"\x80\x05\x96" + HUGE + b".", "expected 4611686018427387904 bytes"),
    "a huge text": (b"\x80\x04\x8d" + HUGE + b".", "expected 4611686018427387904 bytes"),
    "a huge frame": (b"\x80\x04\x95" + HUGE + b".", "inconsistent"),
    "a huge memo": (b"\x80\x02Nr\xff\xff\xff\xff.", "something other than an array"),
    "many instructions": (b"\x80\x02" + b"N" * (1 << 20) + b".", "more than 200 instructions"),
    "a long name": (b"\x80\x02c" + b"a" * (1 << 20) + b"\nb\n.", "holds the Python object"),
    "an empty array": (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n"
                       b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R.", "other than an array"),
    "an array of another type": (b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n"
                                 b"cnumpy\ndtype\nK\x00\x85U\x01b\x87R.", "a type of its own"),
    "a state of none": (b"\x80\x02NNb.", "a state of NoneType"),
    "an encoding": (b"\x80\x02c_codecs\nencode\nU\x01aU\x03hex\x86R.", "other than latin1"),
    "a reference": (b"\x80\x02NQ.", "the instruction BINPERSID, which is not allowed"),
    "no instruction": (b"\x80\x02\xff.", "the instruction b'\\xff', which there is not"),
    "an instance": (b"\x80\x02cnumpy\nndarray\n)\x81.", "the instruction NEWOBJ, which is not"),
    "a number": (pickle.dumps(7), "something other than an array"),
    "several arrays": (pickle.dumps([ARRAY, ARRAY]), "something other than an array"),
    "nothing": (b"\x80\x02", "its pickle has no end"),
    "an order": (pickle.dumps(ARRAY.T, 5).replace(b"\x8c\x01F", b"\x8c\x01X"), "order"),
    "axes": (
        pickle.dumps(ARRAY.transpose(1, 0, 2), 5).replace(b"K\x00K\x02\x87", b"K\x00K\x07\x87"),
        "out of bounds",
    ),
}  # fmt: skip


def late(*_: Any) -> None:
    raise TimeoutError("it takes too long")


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_pickles_are_refused_at_little_cost(tmp_path: Path, kind: str):
    content, wanted = HOSTILE[kind]
    handler = signal.signal(signal.SIGALRM, late)
    tracemalloc.start()
    signal.setitimer(signal.ITIMER_REAL, 5)
    try:
        message = refusal(tmp_path, content)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        tracemalloc.stop()
        signal.signal(signal.SIGALRM, handler)
    assert wanted in message


def header(text: str, version: int = 1) -> bytes:
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode()


def described(descr: str = "'|u1'", shape: str = "(4,)") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n"


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (header(described(shape="(1 << 50,)")), "cannot read"),
        (header(described(shape="(1125899906842624,)")), "needs 1125899906842624 bytes"),
        (header(described(shape="(-4,)")), "in place of a size"),
        (header(described(shape="(4, 'a')")), "cannot read"),
        (header(described("__import__('os').system('touch made')")), "cannot read"),
        (header("(" * 5_000), "cannot read"),
        (header(described(shape="(" * 150 + ")" * 150)), "cannot read"),
        (header(described() + " " * 20_000), "max_header_size"),
        (header(described(), version=3), "it is of .npy version (3, 0), not one of"),
        (b"\x93NUMPY", "cannot read"),
        (b"\x93NUMPY\x02\0\xff\xff\xff\xff{", "cannot read"),
        (npy(ARRAY)[:-1], "needs 60 bytes, it has 59"),
        (npy(ARRAY) + b"a", "needs 60 bytes, it has 61"),
        (b"", "it is empty"),
        (b"no array", "it is of another format"),
    ],
)
def test_other_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, wanted: str
):
    monkeypatch.chdir(tmp_path)
    assert wanted in refusal(tmp_path, content + bytes(4 if content.endswith(b"\n") else 0))
    assert [path.name for path in tmp_path.iterdir()] == ["array"]


def test_what_is_no_file_is_refused(tmp_path: Path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError, match=f"no file '{path}'; allowed: one array of numbers"):
            arrays.read(path)


@pytest.mark.parametrize("form", FORMS)
def test_a_cut_file_is_refused(tmp_path: Path, form: str):
    content = FORMS[form](ARRAY)
    for length in range(0, len(content), 3):
        refusal(tmp_path, content[:length])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zipped])
def test_changed_bytes_are_refused_or_change_numbers(
    tmp_path_factory: pytest.TempPathFactory, pack: Callable[[bytes], bytes], data: st.DataObject
):
    form = data.draw(st.sampled_from([*FORMS]))
    content = bytearray(pack(FORMS[form](ARRAY)))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InputError):
        assert read(tmp_path_factory.getbasetemp(), bytes(content)).nbytes < 1000
