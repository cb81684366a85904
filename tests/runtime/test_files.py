"""Files written whole, and locks, also where there are none."""

import errno
import fcntl
import os
import pathlib
import subprocess
import sys
import threading

import pytest

from jaxres.config import Config
from jaxres.runtime import compilation
from jaxres.runtime.errors import InputError
from jaxres.runtime.files import lock, locked, write_whole
from jaxres.training.rundir import RunDirectory


def refuse_locks(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def flock(file: object, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP])
def test_without_locks_the_work_is_done_and_said(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys, code: int
) -> None:
    refuse_locks(monkeypatch, code)
    with locked(tmp_path / "results"):
        pass
    assert f"warning: no file locks in '{tmp_path / 'results'}'" in capsys.readouterr().err
    with RunDirectory(tmp_path / "run", Config()):
        pass
    assert f"warning: no file locks in '{tmp_path / 'run'}'" in capsys.readouterr().err
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    before = compilation.folder_in_use()
    try:
        compilation.use_cache("default")
        assert compilation.folder_in_use() is None
    finally:
        monkeypatch.undo()
        compilation.use_cache(str(pathlib.Path(before).parent) if before else "off")
    assert "warning: compiling without a cache, whose folder" in capsys.readouterr().err


def test_a_disk_that_fails_is_no_missing_lock(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_locks(monkeypatch, errno.EIO)
    with pytest.raises(InputError, match=r"cannot write to --output-dir .*Input/output error"):
        RunDirectory(tmp_path / "run", Config())
    assert not (tmp_path / "run").exists()


def test_links_and_what_is_no_regular_file_stay_what_they_are(tmp_path: pathlib.Path) -> None:
    (tmp_path / "other").mkdir()
    link, target = tmp_path / "link.json", tmp_path / "other" / "target.json"
    link.symlink_to(target)  # to nothing yet
    for text in ("one", "two"):
        write_whole(link, text)
        assert link.is_symlink()
        assert target.read_text() == text
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_whole(pipe, b"x" * 200_000)
    reader.join()
    assert read == [b"x" * 200_000]
    assert pipe.is_fifo()
    null = tmp_path / "null"
    null.symlink_to("/dev/null")
    write_whole(null, "gone")
    assert null.is_symlink()
    assert pathlib.Path("/dev/null").is_char_device()
    names = {path.name for path in tmp_path.rglob("*")}
    assert names == {"link.json", "other", "target.json", "pipe", "null"}


@pytest.mark.parametrize("into", ["pipe", "file"])
def test_standard_output_is_written_to(tmp_path: pathlib.Path, into: str) -> None:
    code = (
        "import pathlib; from jaxres.runtime.files import write_whole; print('before', flush=True);"
        "write_whole(pathlib.Path('/dev/stdout'), 'here\\n'); print('after')"
    )
    command = [sys.executable, "-c", code]
    if into == "pipe":
        said = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    else:
        with (tmp_path / "out").open("a") as file:
            subprocess.run(command, stdout=file, check=True)
        said = (tmp_path / "out").read_text()
    assert said == "before\nhere\nafter\n"


HOLDER = """
import pathlib, sys
from jaxres.runtime.files import lock
with lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_ends_with_its_process(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(TimeoutError), lock(path, timeout_s=0):
            pass
        holder.kill()
    with lock(path, timeout_s=0):
        pass
