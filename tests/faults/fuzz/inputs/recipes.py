"""Recipes: YAML of real and misspelt keys, wrong types, anchors, deep nesting, broken bytes."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from hypothesis import strategies as st

from jaxres.config import Config, recipe, to_dict
from tests.faults.fuzz.damage import damaged, junk
from tests.faults.fuzz.reader import Reader

ROOT = Path(__file__).parents[4]
SETTINGS = to_dict(Config())
BROKEN = (
    b"",
    b"data",
    b"- 1",
    b"\0",
    b"\xff\xfe\0",
    b"12: {a: 1}",
    b"~: {a: 1}",
    b"---\n---\n",
    b"%YAML 9.9\n---\ndata: {}\n",
    b"data:\n\tcanvas: 3\n",
    b"data: {canvas: }",
    b"data: {canvas: 0x40}\n",
    b"data: {canvas: 64}\ndata: {canvas: 32}\n",
    b"data: {<<: {canvas: 64}}\n",
    b"data: !!python/object/apply:os.system [true]\n",
    b"? {a: b}\n: c\n",
    b"? [data]\n: c\n",
    b"a: &a [*a]\n",
    b"data: &a {canvas: *a}\n",
    b"[" * 3000,
    b"{a: " * 3000,
    b"data: " + b"[" * 500 + b"]" * 500,
    b"train: {epochs: " + b"9" * 5000 + b"}",
    b"train: {compile_cache: " + b"x" * 70_000 + b"}",
    b"transfer: {freeze: ['*'], unfreeze: ['" + b"1" * 5000 + b":a']}",
    "data: {dataset: \u202edigits}".encode(),
    b"data: {dataset: 'a\\nb'}",
    b'data: {dataset: "\\ud800"}',
    b'data: {data_dir: "\\0"}',
)


def billion_laughs(key: str, levels: int = 60) -> bytes:
    """A few lines of anchors that stand for 2**levels values."""
    lines = [f"{key}:", "    - &a0 [x, x]"]
    lines += [f"    - &a{k} [*a{k - 1}, *a{k - 1}]" for k in range(1, levels)]
    return "\n".join(lines).encode()


def many_keys(count: int) -> bytes:
    """A section of so many keys."""
    return b"data:\n" + b"".join(b"  k%d: 1\n" % number for number in range(count))


def values() -> st.SearchStrategy[Any]:
    """Values for a key: those of other keys, junk, numbers at the ends of every range."""
    others = [value for keys in SETTINGS.values() for value in keys.values()]
    numbers = st.one_of(
        st.integers(-3, 300), st.sampled_from((2**31, 2**63, 10**30, -0.0, 1e-300, 1e300))
    )
    words = st.sampled_from(("photos", "black", "mnist", "resnet18", "1e-3", "true", "0x10", "::"))
    return st.one_of(junk(), st.sampled_from(others), numbers, words, st.lists(numbers, max_size=4))


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """A recipe as YAML: mostly real keys."""
    recipe: dict[str, Any] = {}
    for _ in range(draw(st.integers(1, 4))):
        section = draw(st.sampled_from((*SETTINGS, *SETTINGS, "modle", "Data", "")))
        keys = list(SETTINGS.get(section, SETTINGS["data"]))
        key = draw(st.sampled_from(keys))
        if draw(st.integers(0, 9)) == 0:
            key = draw(st.sampled_from((key[:-1], key + "s", key.upper(), "", "é")))
        into = recipe.setdefault(section, {})
        into[key] = draw(values())
    if draw(st.integers(0, 9)) == 0:
        recipe[draw(st.sampled_from(list(SETTINGS)))] = draw(values())
    return yaml.safe_dump(recipe).encode(errors="surrogatepass")


LARGE = (
    billion_laughs("data"),
    billion_laughs("data:\n  mean"),
    billion_laughs("data").replace(b"data:", b""),
    many_keys(5000),
    many_keys(500_000),
    b"data: {digit_side: [" + b"32, " * 15_000 + b"]}",
)


@contextlib.contextmanager
def files(scratch: Path) -> Iterator[Reader]:
    """`recipes.load`: a recipe becomes settings, or a sentence."""
    del scratch
    shipped = [path.read_bytes() for path in sorted((ROOT / "configs").rglob("*.yaml"))]
    made = st.one_of(
        written(),
        written(),
        st.sampled_from(shipped).flatmap(lambda content: damaged(content, shipped)),
        st.sampled_from(BROKEN),
        st.sampled_from(LARGE),
        st.binary(max_size=60),
    )

    def wrong(tree: Any, content: Config) -> str | None:
        """What was read is written and read again the same."""
        again = recipe.from_dict(to_dict(content))
        return None if again == content else "the settings change when written and read again"

    yield Reader(
        made.map(lambda content: {"recipe.yaml": content}),
        lambda source, output: recipe.load(source / "recipe.yaml"),
        wrong,
    )


class _Reached(BaseException):
    """A run got as far as taking its directory."""


@contextlib.contextmanager
def runs(scratch: Path) -> Iterator[Reader]:
    """`jaxres train` by a recipe, up to where it takes its directory: data, batches, network."""
    del scratch
    from jaxres.training import run
    from tests import tiny
    from tests.conftest import TINY_FLAGS

    assert tiny.Tiny
    small = recipe.parse(Config, TINY_FLAGS, prog="test")
    base = {
        "data": {"canvas": 32, "digit_side": [24], "batch_size": 32},
        "model": {"name": "tiny"},
        "train": {"limit_train_examples": 320},
    }
    assert dataclasses.asdict(small)["data"]["canvas"] == 32

    @st.composite
    def recipes(draw: st.DrawFn) -> bytes:
        made = {section: dict(keys) for section, keys in base.items()}
        for _ in range(draw(st.integers(1, 3))):
            section = draw(st.sampled_from(list(SETTINGS)))
            key = draw(st.sampled_from([key for key in SETTINGS[section] if key != "name"]))
            made.setdefault(section, {})[key] = draw(_like(SETTINGS[section][key]))
        return yaml.safe_dump(made).encode(errors="surrogatepass")

    def read(source: Path, output: Path) -> None:
        config = recipe.load(source / "recipe.yaml")
        with contextlib.suppress(_Reached), run.start_run(config, output / "run"):
            pass

    with mock.patch.object(run, "RunDirectory", side_effect=_Reached):
        yield Reader(recipes().map(lambda content: {"recipe.yaml": content}), read)


def _like(default: Any) -> st.SearchStrategy[Any]:
    """Values of a default's kind, or of some kind where it has none."""
    sizes = (1, 2, 3, 8, 28, 32, 64, 320, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 10**30)
    shares = st.sampled_from((0.0, 1e-300, 1e-7, 0.1, 0.5, 0.9, 1.0, 2.0, 1e30))
    if isinstance(default, bool):
        return st.booleans()
    if isinstance(default, int):
        return st.sampled_from(sizes)
    return shares if isinstance(default, float) else st.one_of(plausible(), values())


def plausible() -> st.SearchStrategy[Any]:
    """Values that some key takes."""
    numbers = st.sampled_from((1, 2, 4, 8, 28, 32, 64, 0.1, 0.5, 0.9, 1.0, 2**31 - 1, 10**12))
    words = ("scatter_digits", "plain", "host", "random", "black", "pmap", "one_cycle", "*:2")
    words += ("digits", "natural", "flatten", "bfloat16", "largest", "rings:2", "*norm*", "off")
    return st.one_of(numbers, st.sampled_from((*words, True)), st.lists(numbers, max_size=3))
