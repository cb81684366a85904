"""JAX's persistent compilation cache: where it lives, how large it grows, what was found in it.

JAX keys an entry by the program, the compiler's options, the versions of JAX and XLA and the
devices; a CPU counts with its model and instruction set, so a folder that machines share gives
none of them code that it cannot run.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
from jax import monitoring
from jax.experimental.compilation_cache import compilation_cache

from jaxres.runtime.errors import InputError
from jaxres.runtime.files import lock, locks_work
from jaxres.runtime.paths import caches, require_path

OFF = ("", "off", "none")
MAX_BYTES = 2 * 2**30  # a ResNet-50 step takes 3 MiB, so hundreds of programs; the oldest go first
# Quicker programs are not worth a file: compiling them all again takes 1 s of a start.
MIN_COMPILE_S = 0.1
LOCK_TIMEOUT_S = 10

SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)

Outcome = Literal["hit", "miss", "off"]


class Compiled(NamedTuple):
    """A program that XLA compiled, or that was found in the cache."""

    name: str
    seconds: float
    cached: bool


def use_cache(setting: str) -> None:
    """Switch the cache on or off for this process as `train.compile_cache` says.

    `default` is $JAX_COMPILATION_CACHE_DIR, else the user's cache folder. What is there but cannot
    be written is an error if the setting names it, and a line on standard error if not.
    JAX_ENABLE_COMPILATION_CACHE=false overrules everything.

    Raises:
        InputError: the folder that the setting names cannot be written.
    """
    compilation_cache.reset_cache()  # JAX decides once per process, at its first compilation
    jax.config.update("jax_compilation_cache_dir", None)
    if setting.lower() in OFF or not _config("jax_enable_compilation_cache"):
        return
    named = setting != "default"
    try:
        chosen = Path(setting).expanduser() if named else default_folder()
        require_path("its folder", str(chosen))
        folder = _make(chosen.absolute() / "jaxres")
    except (OSError, RuntimeError, InputError) as error:  # RuntimeError: no such user's home
        problem = " ".join(str(error).split())
        if named:
            raise InputError(
                f"train.compile_cache is '{setting}', which cannot be written ({problem}); "
                "allowed: default, off, or a folder that can be written"
            ) from None
        print(
            f"warning: compiling without a cache, whose folder cannot be written ({problem}); "
            "train.compile_cache moves it or switches it off",
            file=sys.stderr,
            flush=True,
        )
        return
    for name, value in zip(SETTINGS, (str(folder), MAX_BYTES, MIN_COMPILE_S, 0), strict=True):
        jax.config.update(name, value)


@contextlib.contextmanager
def kept_settings() -> Iterator[None]:
    """Give the process, at the end, the cache back that it had."""
    before = {name: _config(name) for name in SETTINGS}
    try:
        yield
    finally:
        if before != {name: _config(name) for name in SETTINGS}:
            compilation_cache.reset_cache()
            for name, value in before.items():
                jax.config.update(name, value)


def folder_in_use() -> str | None:
    """Where JAX keeps compiled programs now."""
    return _config("jax_compilation_cache_dir")


def _config(name: str) -> Any:
    return getattr(jax.config, name)  # which no type checker knows


def default_folder() -> Path:
    """$JAX_COMPILATION_CACHE_DIR, else the user's folder for caches."""
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    return Path(chosen) if chosen else caches()


def _make(folder: Path) -> Path:
    """Make the folder, and remove entries whose writer was killed: JAX would never replace them.

    JAX writes NAME-cache and then NAME-atime, holding the folder's lock; an entry without the
    second may be cut short, and makes JAX 0.10 refuse every later write (jax issue 39880). Hence
    a folder of our own: without a bound on the size JAX writes no NAME-atime at all.

    Raises:
        OSError: the folder cannot be written, or another process does not give up its lock.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not locks_work(folder):  # JAX waits for them, program by program
        raise OSError(f"no file locks in '{folder}'")
    with lock(folder / ".lockfile", timeout_s=LOCK_TIMEOUT_S):
        for entry in folder.glob("*-cache"):
            if not entry.with_name(entry.name.removesuffix("cache") + "atime").exists():
                entry.unlink()
    return folder


@contextlib.contextmanager
def watch() -> Iterator[list[Compiled]]:
    """Collect the programs that are compiled inside, in a list that grows."""
    programs: list[Compiled] = []
    _watchers.append(programs)
    try:
        yield programs
    finally:
        _watchers.remove(programs)


def outcome(programs: list[Compiled]) -> Outcome:
    """Whether the program that took longest, among those of `watch`, was found in the cache."""
    if not folder_in_use():
        return "off"
    slowest = max(programs, key=lambda program: program.seconds, default=None)
    return "hit" if slowest is not None and slowest.cached else "miss"


_watchers: list[list[Compiled]] = []
_hits: list[None] = []  # of the compilation under way: JAX tells of a hit before its duration


def _on_event(event: str, **_: str | int) -> None:
    if event == "/jax/compilation_cache/cache_hits":
        _hits.append(None)


def _on_duration(event: str, duration_secs: float, **details: str | int) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        program = Compiled(str(details.get("fun_name")), duration_secs, cached=bool(_hits))
        _hits.clear()
        for programs in _watchers:
            programs.append(program)


monitoring.register_event_listener(_on_event)
monitoring.register_event_duration_secs_listener(_on_duration)
