"""Code of a user's own, such as a registered loss: what it raises becomes one sentence."""

import contextlib
import functools
import sysconfig
import traceback
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any, TypeVar

from jaxres.runtime.errors import InputError, Interrupted, TrainingFailed, brief

T = TypeVar("T")
OURS = Path(__file__).parents[1]
PYTHON = Path(sysconfig.get_paths()["stdlib"])
SITE = Path(sysconfig.get_paths()["purelib"])  # it may be below PYTHON
LIBRARIES = {"jax", "jaxlib", "flax", "optax", "chex", "numpy", "jaxtyping", "beartype"}
_registered: set[tuple[str, str]] = set()  # kinds and names


@contextlib.contextmanager
def own_code(what: str, *, when: bool = True) -> Iterator[None]:
    """Run it; `what` names it in the sentence, as "the loss 'focal'".

    Unless `when` holds it is JaxRes's code, whose errors stay as they are.

    Raises:
        InputError: it raised an error, which is this one's cause.
    """
    try:
        yield
    except (InputError, TrainingFailed, Interrupted):
        raise
    except Exception as error:
        if not when:
            raise
        reason = f"{type(error).__name__}: {brief(error)}"
        raise InputError(f"{what} fails{_place(error)}: {reason}") from error


def calling(what: str, function: Callable[..., T]) -> Callable[..., T]:
    """The function, whose calls are `own_code`."""

    @functools.wraps(function)
    def called(*given: Any, **named: Any) -> T:
        with own_code(what):
            return function(*given, **named)

    return called


def registering(
    kind: str,
    name: str,
    table: MutableMapping[str, Any],
    entry: Callable[[Any], Any] = lambda registered: registered,
) -> Callable[[T], T]:
    """Decorator that puts what it decorates into a registry under a name, as `entry` of it.

    `kind` names what it is, as "loss".

    Raises:
        ValueError: the name is taken, or is empty.
    """
    one = f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"
    if not isinstance(name, str) or not name:
        raise ValueError(f"{one} is registered as {name!r}; allowed: a name, as text")

    def register(registered: T) -> T:
        if not callable(registered):
            raise ValueError(f"{one} '{name}' is registered, which cannot be called")
        if name in table:
            raise ValueError(f"{one} '{name}' is already registered")
        table[name] = entry(registered)
        _registered.add((kind, name))
        return registered

    return register


def is_registered(kind: str, name: str) -> bool:
    """Whether a user's own code registered a thing of a kind under a name, with `registering`."""
    return (kind, name) in _registered


def _place(error: BaseException) -> str:
    """Where in a user's own file an error was raised, if in one."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_own(Path(frame.filename))]
    return f" at {own[-1].filename}, line {own[-1].lineno}" if own else ""


def _is_own(file: Path) -> bool:
    """Whether a file is neither ours nor Python's nor that of a library that we call."""
    if file.is_relative_to(SITE):
        return file.relative_to(SITE).parts[0] not in LIBRARIES | {OURS.name}
    return not (file.is_relative_to(OURS) or file.is_relative_to(PYTHON) or file.name[:1] == "<")
