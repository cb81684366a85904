"""Recipes and flags become settings, through one parser.

A recipe is a YAML file of differences from the defaults of `config`. It is turned into flags
and read by tyro together with the command line (which comes last and wins), so types, unknown
keys and `--help` are one parser's work. (Merging YAML into the dataclasses would let `1e-3`
through as a string.)
"""

import contextlib
import dataclasses
import functools
import io
import re
import reprlib
import typing
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
import yaml

from jaxres.config import Config, as_made, flatten, plugins
from jaxres.config.shipped import find_recipe
from jaxres.runtime.errors import InputError, unknown_name
from jaxres.runtime.paths import require_path

T = typing.TypeVar("T")

MAX_BYTES = 64 << 10  # a recipe has 1 or 2 kB

# The type of a command's field that holds every setting, as --section.key VALUE.
Settings = Annotated[Config, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff]

DEFAULTS = Config()

# Of a command's field `output`.
ShortO = tyro.conf.arg(aliases=["-o"])

# Fields of commands that are files; the others are folders.
FILES = ("recipe", "images", "image", "submission", "output", "file", "path", "from_dir", "card")

# What YAML and people write for Python's words.
SPELLINGS = {"true": "True", "false": "False", "null": "None", "none": "None", "~": "None"}


class _Loader(yaml.BaseLoader):
    """Scalars stay text, to which tyro gives a type (1e-3 is a number); a key counts once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key, times in keys.items():
            if times > 1:
                raise yaml.YAMLError(f"key '{key}' stands twice{node.start_mark}")
        return super().construct_mapping(node, deep)


def read_recipe(path: Path) -> dict[str, Any]:
    """A recipe's sections and keys as nested plain values.

    Raises:
        InputError: the file is missing, is not YAML, or is not made of sections and known keys.
    """
    if not path.is_file():
        near = sorted(str(p) for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise InputError(
            f"no recipe at '{path}'" + (f" (there: {', '.join(near)})" if near else "")
        )
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise InputError(f"recipe '{path}' has {size} bytes; allowed: {MAX_BYTES}")
        recipe = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        detail = " ".join(str(error).split())
        raise InputError(f"recipe '{path}' is not readable as YAML: {detail}") from None
    except RecursionError:
        raise InputError(f"recipe '{path}' is nested too deeply") from None
    recipe = recipe or {}
    if isinstance(recipe, dict) and "imports" in recipe:
        if "plugins" in recipe:
            raise InputError(f"recipe '{path}' has imports and plugins; allowed: one of them")
        recipe = {"plugins": {"imports": recipe.pop("imports")}, **recipe}
    check_keys(recipe, where=f"recipe '{path}'")
    return recipe


def check_keys(nested: Any, *, where: str) -> None:
    """Refuse what is not sections of known keys.

    Raises:
        InputError: naming the key, the nearest known one and all that are allowed.
    """
    if not isinstance(nested, dict):
        raise InputError(
            f"{where} must hold sections ({', '.join(_sections())}), not {_shown(nested)}"
        )
    for section, keys in nested.items():
        if section not in _sections():
            raise unknown_name(f"section in {where}", str(section), _sections())
        if not isinstance(keys, dict):
            raise InputError(f"section '{section}' in {where} must hold keys, not {_shown(keys)}")
        known = [f"{section}.{field.name}" for field in dataclasses.fields(_sections()[section])]
        for key, value in keys.items():
            if f"{section}.{key}" not in known:
                raise unknown_name(f"key in {where}", f"{section}.{key}", known)
            if isinstance(value, dict):
                raise InputError(f"{section}.{key} in {where} must be a value, not {_shown(value)}")


def to_flags(nested: dict[str, Any]) -> list[str]:
    """Nested settings as command-line words: `["--data.canvas", "64", ...]`."""
    words = []
    for key, value in flatten(nested).items():
        values = value if isinstance(value, list) else [value]
        words += [f"--{key}", *(_word(key, item) for item in values)]
    return words


def _word(key: str, value: Any) -> str:
    if isinstance(value, list | dict):
        raise InputError(f"{key} holds {_shown(value)}; allowed: a value or a plain list of values")
    return str(value)


def _shown(value: Any) -> str:
    """The beginning of a value; a few lines of YAML can stand for more than memory holds."""
    return reprlib.repr(value)[:80]


def parse(target: type[T], words: Sequence[str], *, prog: str) -> T:
    """Read command-line words into a dataclass, whose field of type `Settings` takes every key.

    Raises:
        InputError: in one sentence, whatever is wrong, with a plugin too.
        SystemExit: with status 0 after `--help`.
    """
    plugins.load_installed()
    plugins.import_all(plugins.imports_among(words))
    parsed = _parse(target, tuple(_checked(target, words)), prog)
    _require_usable_paths(parsed)
    return parsed


@functools.lru_cache(maxsize=256)
def _parse(target: type[T], words: tuple[str, ...], prog: str) -> T:
    """Words as settings; kept, since tyro takes 50 ms and a study reads its rows often."""
    markers: Any = [tyro.conf.FlagCreatePairsOff]
    if target is Config:
        markers.append(tyro.conf.FlagConversionOff)
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output):
            return tyro.cli(target, args=words, prog=prog, config=markers)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise InputError(_one_sentence(output.getvalue())) from None


def _require_usable_paths(parsed: Any) -> None:
    """Check the paths among a command's own words."""
    for name, value in vars(parsed).items():
        for path in value if isinstance(value, tuple) else (value,):
            if isinstance(path, Path) or (name == "data_dir" and path):
                require_path(name, str(path), folder=name not in FILES)


def _checked(target: type, words: Sequence[str]) -> list[str]:
    """The words with `true` and `null` spelled as tyro knows them, where a flag takes those.

    Raises:
        InputError: naming a flag that `target` does not have, and the nearest that it has.
    """
    flags = dict(_flags_of(target))
    spelled, takes_words = [], False
    for word in words:
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            name = flag[2:].replace("-", "_")
            if name != "help" and name not in flags:
                raise _unknown_flag(_dashed(name), map(_dashed, flags))
            takes_words = _takes_words(flags.get(name))
            spelled.append(flag + equals + (SPELLINGS.get(value, value) if takes_words else value))
        else:
            spelled.append(SPELLINGS.get(word, word) if takes_words else word)
    return spelled


def _dashed(flag: str) -> str:
    """A flag's name as help writes it."""
    return flag.replace("_", "-")


def _unknown_flag(name: str, known: Iterable[str]) -> InputError:
    flags = [*known]
    section = name.partition(".")[0] if "." in name else ""
    if section in _sections():
        allowed = [flag for flag in flags if flag.startswith(f"{section}.")]
        return unknown_name("flag", f"--{name}", (f"--{flag}" for flag in allowed))
    own = [f"--{flag}" for flag in flags if "." not in flag]
    settings = [f"--{section}.KEY" for section in _sections()] if len(own) < len(flags) else []
    return unknown_name("flag", f"--{name}", [*own, *settings, "--help"])


def _takes_words(hint: Any) -> bool:
    """Whether true, false or null are values of a type."""
    return hint is bool or bool({bool, type(None)} & set(typing.get_args(hint)))


def _flags_of(target: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names and types of the flags that tyro makes of a dataclass, without positional words."""
    for name, hint in typing.get_type_hints(target, include_extras=True).items():
        extras = getattr(hint, "__metadata__", ())
        if tyro.conf.Positional in extras:
            continue
        plain = typing.get_args(hint)[0] if extras else hint
        given = [extra.name for extra in extras if getattr(extra, "name", None) is not None]
        full = f"{prefix}{given[0] if given else name}"
        if dataclasses.is_dataclass(plain):
            yield from _flags_of(plain, f"{full}." if full else "")
        else:
            yield full, plain


def _one_sentence(box: str) -> str:
    """The message out of tyro's framed error: up to the first rule, frame and wrapping removed.

    tyro has errors as objects too, but only in a module that is private and may change any day.
    Where the output is not UTF-8 the frame is a title and rules of hyphens.
    """
    lines = [line.strip(" │") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    message = []
    for line in lines if "╭" in box else lines[2:]:
        if re.fullmatch("[─-]{3,}", line):
            break
        message.append(line)
    text = re.sub(r"\[/?bold\]", "", " ".join(" ".join(message).split()))
    text = re.sub(r"^Error parsing (?:[a-z]+: )?", "", text)
    text = re.sub(r"^Missing from (jaxres.*?): (\S+) (.*) \(required\)$", r"\1 needs \2: \3", text)
    return text or " ".join(box.split())


def _sections() -> dict[str, type]:
    return {field.name: typing.cast(type, field.type) for field in dataclasses.fields(Config)}


def load(recipe: str | Path, flags: Sequence[str] = (), *, prog: str = "jaxres train") -> Config:
    """The settings of a recipe, a file or the name of one that is shipped, with flags on top.

    Raises:
        InputError: unknown keys, wrong types, values out of range, in one sentence.
    """
    return parse(Config, [*to_flags(read_recipe(find_recipe(recipe))), *flags], prog=prog)


def load_saved(path: Path) -> Config:
    """The settings that a run left in a file.

    Raises:
        InputError: as `load`.
    """
    return parse(Config, to_flags(as_made(read_recipe(path))), prog=path.name)


def from_dict(nested: dict[str, Any], flags: Sequence[str] = ()) -> Config:
    """Settings that `to_dict` made, with flags on top.

    Raises:
        InputError: as `load`.
    """
    check_keys(nested, where="the saved settings")
    return parse(Config, [*to_flags(nested), *flags], prog="jaxres")


def split_settings(words: Iterable[str]) -> tuple[list[str], list[str]]:
    """A command's own words, and the `--section.key VALUE ...` words that are settings."""
    own: list[str] = []
    settings: list[str] = []
    into = own
    for word in words:
        if word.startswith("-") and not word[1:2].isdigit():
            into = settings if "." in word.partition("=")[0] else own
        into.append(word)
    return own, settings
