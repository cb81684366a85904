"""Command lines: real and made-up words through the command's own entry."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import strategies as st

from jaxres.cli import main
from jaxres.config import recipe
from jaxres.runtime.errors import InputError
from tests.faults.fuzz.damage import TEXTS
from tests.faults.fuzz.reader import Reader

KNOWN = {flag for _, kind in main.COMMANDS.values() for flag, _ in recipe._flags_of(kind)}
FLAGS = [f"--{name}" for name in sorted(KNOWN)]
PATHS = (".", "..", "/", "/dev/null", "nowhere", "recipe.yaml", "file", "x" * 300, "a\0b", "~", "")
PATHS += ("/" + "y/" * 3000, "nowhere\nelse", "\udcff", "file/below", "-", "--")
NUMBERS = ("0", "1", "-1", "64", "1e-3", "nan", "inf", "2147483648", "9" * 20, "9" * 5000, "²", "٣")
NAMES = ("true", "null", "best", "test", "mnist", "photos", "digits", "cifar_resnet20")
VALUES = (*NUMBERS, *NAMES, "keras_resnet50", "*", "[", "rings:2")
COMMANDS = [name.split() for name in main.COMMANDS]


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command with a few words after it."""
    command = draw(st.sampled_from([*COMMANDS, *COMMANDS, ["trian"], ["data"], []]))
    own = [f"--{name}" for name in _own_flags(command)] or FLAGS
    word = st.one_of(
        st.sampled_from(own),
        st.sampled_from(own).map(lambda flag: flag.replace("_", "-")),
        st.sampled_from(FLAGS),
        st.sampled_from(PATHS),
        st.sampled_from(VALUES),
        st.sampled_from(TEXTS),
        st.text(max_size=5),
        st.builds("{}={}".format, st.sampled_from(own), st.sampled_from(VALUES + PATHS)),
        st.sampled_from(("-o", "-h", "-v", "--", "--=", "-", "--.", "--data.", "--.canvas")),
    )
    return [*command, *draw(st.lists(word, max_size=5))]


def _own_flags(command: list[str]) -> list[str]:
    known = main.COMMANDS.get(" ".join(command))
    return [name for name, _ in recipe._flags_of(known[1]) if "." not in name] if known else []


class _UnhandledError(Exception):
    """The command printed something other than one line, or gave another status than 0 and 2."""


@contextlib.contextmanager
def words(scratch: Path) -> Iterator[Reader]:
    """`jaxres.cli.main`; what would take long or need a network stops where it begins."""
    from jaxres.data.datasets import cifar10, flowers, mnist
    from jaxres.models import count
    from jaxres.training import loop

    folder = scratch / "data"
    folder.mkdir(parents=True)
    printed = (scratch / "said", scratch / "told")

    def read(source: Path, output: Path) -> None:
        given = json.loads((source / "words.json").read_bytes())
        (source / "recipe.yaml").write_text("data: {canvas: 64, digit_side: 32}\n")
        (source / "file").write_text("no weights")
        before, home = set(source.iterdir()), os.getcwd()
        os.chdir(source)
        try:
            with (
                printed[0].open("w", errors="backslashreplace") as said_to,
                printed[1].open("w", errors="backslashreplace") as told_to,
                contextlib.redirect_stdout(said_to),
                contextlib.redirect_stderr(told_to),
            ):
                status = main.main(given)
        finally:
            os.chdir(home)
        said, told = (path.read_text() for path in printed)
        _check(status, said, told)
        made = set(source.iterdir()) - before
        if status == 2 and made:
            raise _UnhandledError(f"left behind: {made}")
        if status == 2:
            raise InputError(told.strip())

    no_training = loop.Interrupted("stopped before the first step")
    offline = [
        mock.patch.object(dataset, "download", side_effect=InputError("no network here"))
        for dataset in (cifar10, flowers, mnist)
    ]
    stopped = [
        mock.patch.object(loop, "train", autospec=True, side_effect=no_training),
        *offline,
        mock.patch.object(count, "count", _cheap_count(count.count)),
        mock.patch.dict(os.environ, TFDS_DATA_DIR=str(folder), JAX_ENABLE_COMPILATION_CACHE="0"),
    ]
    with contextlib.ExitStack() as patched:
        for patch in stopped:
            patched.enter_context(patch)
        lines = command_lines().map(lambda line: {"words.json": json.dumps(line).encode()})
        yield Reader(lines, read)


def _cheap_count(real: Any) -> Any:
    from jaxres.models.count import ModelCost

    def count(name: str, **options: Any) -> Any:
        return real(name, **options) if name == "handbook_cnn" else ModelCost(name, 1, 1, 1.0, 1)

    return count


def _check(status: int, said: str, told: str) -> None:
    if status == 0 and "Traceback" not in told:
        return
    lines = told.splitlines()
    is_help = not said and lines[:1] == ["usage: jaxres COMMAND [--help]"]
    one_line = told.startswith("error: ") and told.endswith("\n") and told[:-1].isprintable()
    if status != 2 or said or not (one_line or is_help):
        raise _UnhandledError(f"status {status}, printed {said[:500]!r} and {told[-3000:]}")
