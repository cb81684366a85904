"""The judge of outcomes sees what must not happen."""

import contextlib
import mmap
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from jaxres.runtime.errors import InputError
from tests.faults.fuzz import campaign, outcome, trees
from tests.faults.fuzz.reader import Reader, unless_same


@pytest.fixture
def judged(tmp_path: Path) -> Callable[[Callable[[Path], Any]], outcome.Outcome]:
    """`judged(read)`: the outcome of a reader that is given its output folder."""

    def run(read: Callable[[Path], Any]) -> outcome.Outcome:
        output, errors = tmp_path / "output", tmp_path / "errors"
        output.mkdir()
        errors.touch()
        with outcome.standard_error_in(errors):
            return outcome.judge(lambda: read(output), output, errors)

    return run


def refuse(message: str = "no such thing") -> None:
    raise InputError(message)


def test_content_and_sentences_are_good(judged):
    assert judged(lambda output: 3)[:2] == ("accepted", "")


def test_an_input_error_refuses(judged):
    assert judged(lambda output: refuse())[:2] == ("refused", "no such thing")


@pytest.mark.parametrize("error", [KeyError("a"), RecursionError(), SystemExit(3), InputError("")])
def test_any_other_error_is_unhandled(judged, error: BaseException):
    def read(output: Path) -> None:
        raise error

    assert judged(read).kind == "unhandled"


def test_a_printed_traceback_is_unhandled(judged):
    def read(output: Path) -> None:
        try:
            refuse("inner")
        except InputError:
            os.write(2, traceback.format_exc().encode())
        refuse()

    found = judged(read)
    assert found.kind == "unhandled"
    assert "InputError: inner" in found.detail


def test_a_hang_is_ended(judged, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outcome, "SECONDS", 0.2)

    def read(output: Path) -> None:
        with contextlib.suppress(Exception):  # as a reader that calls whatever fails damage
            time.sleep(60)

    found = judged(read)
    assert found.kind == "hang"
    assert found.seconds < 10


def test_a_reader_on_a_pipe_hangs(judged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outcome, "SECONDS", 0.2)
    trees.write({"a": trees.Pipe()}, tmp_path / "input")
    assert judged(lambda output: (tmp_path / "input" / "a").read_bytes()).kind == "hang"


@pytest.mark.parametrize("name", ["made", ".staging/part", "made.tmp"])
def test_what_a_refusal_leaves_behind_is_partial(judged, name: str):
    def read(output: Path) -> None:
        (output / name).parent.mkdir(exist_ok=True)
        (output / name).touch()
        refuse()

    found = judged(read)
    assert found.kind == "partial"
    assert name in found.detail


def test_memory_out_of_proportion_is_an_allocation(judged, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outcome, "ALLOWED_MIB", 64)

    def read(output: Path) -> None:
        with mmap.mmap(-1, 256 << 20) as fresh:  # not what the process freed before
            fresh.write(b"1" * (256 << 20))

    found = judged(read)
    assert found.kind == "allocation"
    assert found.peak_mib > 200


def test_a_refusal_because_memory_ran_out_is_an_allocation(judged):
    def read(output: Path) -> None:
        try:
            np.empty(1 << 50, np.uint8)
        except MemoryError as error:
            raise InputError("it is damaged") from error

    assert judged(read).kind == "allocation"


def test_a_campaign_counts_and_keeps_what_went_wrong(tmp_path: Path):
    def read(source: Path, output: Path) -> bytes:
        content = (source / "file").read_bytes()
        if content == b"bad":
            raise KeyError(content)
        return content if content != b"no" else refuse()  # pyright: ignore[reportReturnType]

    contents = st.sampled_from((b"good", b"other", b"bad", b"no"))

    @contextlib.contextmanager
    def opened(scratch: Path):
        yield Reader(
            contents.map(lambda content: {"file": content}), read, unless_same(b"good", b"never")
        )

    counts = campaign.run(
        "read", opened, inputs=40, seed=1, work=tmp_path / "work", keep=tmp_path / "kept"
    )
    assert dict(counts.kinds) == {"accepted": 1, "refused": 1, "wrong": 1, "unhandled": 1}
    assert counts.unhandled == 2
    kept = {(tmp_path / "kept" / f"read-{k}" / "input" / "file").read_bytes() for k in (1, 2)}
    assert kept == {b"bad", b"other"}
    assert not (tmp_path / "work").exists()
