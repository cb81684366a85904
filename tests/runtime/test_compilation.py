"""The compilation cache: where it is, what a warm start gives, and how often anything compiles."""

import collections
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxres.cli.main import main
from jaxres.runtime import compilation
from jaxres.runtime.errors import InputError
from jaxres.training import loop, setup
from tests.faults.runs import ROOT
from tests.marked import slow
from tests.training.test_loop import assert_same_end
from tests.training.unplug import unplugged_at


@pytest.fixture
def enabled(optimised: None, monkeypatch: pytest.MonkeyPatch):
    """No cache is in use at first; one that is switched on keeps whatever program compiles."""
    compilation.use_cache("off")
    monkeypatch.setattr(compilation, "MIN_COMPILE_S", 0.0)
    jax.clear_caches()
    yield
    monkeypatch.undo()  # also of a test that has moved the default folder
    compilation.use_cache("default")
    jax.clear_caches()


def train(run_dir: pathlib.Path, cache: pathlib.Path, flags: list[str]) -> subprocess.Popen:
    """`jaxres train` in a process of its own, with the cache in the user's cache folder."""
    recipe = run_dir.with_suffix(".yaml")
    recipe.write_text("{}")
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    environment["JAX_ENABLE_COMPILATION_CACHE"] = "true"
    command = [sys.executable, "-m", "tests.tiny", "train", str(recipe)]
    return subprocess.Popen(
        [*command, "--output-dir", str(run_dir), *flags], cwd=ROOT, env=environment
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="XDG_CACHE_HOME is for Linux")
def test_processes_share_a_cache_and_programs_from_it_give_the_same_bits(
    tiny_config, tiny_flags, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, enabled
) -> None:
    flags = ["--checkpoint.every-steps=3", "--model.dropout=0.2", "--optim.ema-decay=0.9"]
    # Two at once, both on an empty folder, then this process.
    names = ("one", "other")
    started = [train(tmp_path / name, tmp_path / "cache", [*tiny_flags, *flags]) for name in names]
    assert [process.wait(120) for process in started] == [0, 0]
    assert any((tmp_path / "cache" / "jaxres").glob("*-cache"))

    config = tiny_config(*flags, f"--train.compile-cache={tmp_path / 'cache'}")
    with unplugged_at(11):
        loop.train(config, tmp_path / "warm")
    jax.clear_caches()
    assert loop.train(config, tmp_path / "warm")["compile_cache"] == "hit"

    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in names]
    assert "miss" in [summary["compile_cache"] for summary in summaries]
    for name in ("other", "warm"):
        assert_same_end(tmp_path / "one", tmp_path / name, 20)


def test_outcomes(enabled, tmp_path: pathlib.Path) -> None:
    def compiled() -> str:
        jax.clear_caches()
        with compilation.watch() as programs:
            jax.jit(lambda x: x @ x)(np.ones((8, 8), np.float32))
        assert [program.name for program in programs] == ["jit(<lambda>)"]
        return compilation.outcome(programs)

    assert compiled() == "off"
    compilation.use_cache(str(tmp_path))
    assert [compiled(), compiled()] == ["miss", "hit"]
    compilation.use_cache("")
    assert compiled() == "off"


def test_jax_can_be_told_to_overrule(enabled, tmp_path: pathlib.Path) -> None:
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        compilation.use_cache(str(tmp_path))
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    assert compilation.folder_in_use() is None
    assert not list(tmp_path.iterdir())


def test_a_named_folder_that_cannot_be_written_is_refused(
    enabled, tmp_path: pathlib.Path, tiny_flags: list[str], capfd
) -> None:
    import tests.tiny  # noqa: F401

    (tmp_path / "file").touch()
    (tmp_path / "recipe.yaml").write_text("{}")
    words = [str(tmp_path / "recipe.yaml"), "--output-dir", str(tmp_path / "run"), *tiny_flags]
    assert main(["train", *words, f"--train.compile-cache={tmp_path / 'file'}"]) == 2
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"error: train.compile_cache is '{tmp_path / 'file'}', which cannot")
    assert "allowed: default, off, or a folder" in said[0]
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match=r"train\.compile_cache is '~nobody-of-this-name'"):
        compilation.use_cache("~nobody-of-this-name")
    assert main(["train", *words, "--train.compile-cache=a\nb"]) == 2


def test_a_default_folder_that_cannot_be_written_is_a_warning(
    enabled, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "file"))
    compilation.use_cache("default")
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("warning: compiling without a cache")
    assert compilation.folder_in_use() is None


def test_the_default_folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert compilation.default_folder() == tmp_path / ".cache"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert compilation.default_folder() == tmp_path / "Library" / "Caches"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert compilation.default_folder() == pathlib.Path("/xdg")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/jax")
    assert compilation.default_folder() == pathlib.Path("/jax")


def test_entries_cut_short_are_removed_and_whole_ones_kept(enabled, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "jaxres"
    folder.mkdir()
    for name in ("whole-cache", "whole-atime", "cut-cache", "other"):
        (folder / name).write_bytes(b"12345678")
    (tmp_path / "theirs-cache").touch()
    compilation.use_cache(str(tmp_path))
    kept = {path.name for path in folder.iterdir()} - {".lockfile"}
    assert kept == {"whole-cache", "whole-atime", "other"}
    assert (tmp_path / "theirs-cache").exists()


@pytest.mark.parametrize(
    ("flags", "programs"),
    [
        ([], {"jit(step)": 2}),
        slow(["--train.steps-per-call=4"], {"jit(many)": 2, "jit(step)": 1}),
    ],
)
def test_each_step_compiles_once_per_length_of_a_call_and_evaluation_once(
    tiny_config, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, flags, programs
) -> None:
    traces = collections.Counter()
    made = setup.abstract_network

    def counting(*arguments, **options):
        net = made(*arguments, **options)

        def apply(*arrays, train, **options):
            traces["train" if train else "evaluation"] += 1
            return net.apply(*arrays, train=train, **options)

        return net._replace(apply=apply)

    monkeypatch.setattr(setup, "abstract_network", counting)
    with compilation.watch() as compiled:
        loop.train(tiny_config("--train.epochs=3", *flags), tmp_path / "run")
    counted = collections.Counter(program.name for program in compiled)
    # `step` is the training step and the evaluation's; `many` has lengths 4 and 2.
    assert {name: counted[name] for name in ("jit(many)", "jit(step)") if counted[name]} == programs
    assert traces["evaluation"] == 1
    if not flags:
        assert traces["train"] == 1
