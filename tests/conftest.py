"""Four virtual CPU devices, a compilation cache, and the real data where there is some."""

import atexit
import gc
import os
import pathlib
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "4"
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "true"
if "PYTEST_XDIST_WORKER" not in os.environ:
    # The workers and the processes that tests start have it from here. It goes with the session.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jaxres-compiled-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cv2
import pytest
from jaxlib.version import __version__ as jaxlib_version

cv2.setNumThreads(1)
# What is imported lives to the end: looking through it again and again takes a tenth of the time.
gc.set_threshold(100_000, 50, 100)
COMPILE_QUICKLY = "jax_disable_most_optimizations"
# XLA's older code generator takes half the time. jaxlib 0.11 has it no more.
OLD_EMITTERS = "--xla_cpu_use_fusion_emitters=false" if jaxlib_version < "0.11" else ""
QUICKLY = {
    "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {OLD_EMITTERS}".strip(),
    COMPILE_QUICKLY.upper(): "true",
}


@pytest.fixture(scope="session", autouse=True)
def compiled_once() -> None:
    """What one test has compiled no other compiles again, and to slower code in half the time.

    Processes that tests start compile as users' do, unless they are given `QUICKLY`.
    """
    import jax

    from jaxres.runtime import compilation

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", QUICKLY["XLA_FLAGS"])
        jax.jit(lambda x: x + 1)(1)  # XLA reads the flags once
    compilation.use_cache("default")
    jax.config.update(COMPILE_QUICKLY, True)
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def settings_described_once() -> Iterator[None]:
    """Tyro looks through the fields of the settings once, not at every one of a thousand parses.

    That takes it 60 ms of 65, and what it finds depends on the class alone.
    """
    from tyro._parsers import ParserSpecification

    describe = ParserSpecification.from_callable_or_type
    described: dict[Any, ParserSpecification] = {}

    def once(f: Any, markers: Any, **given: Any) -> ParserSpecification:
        if given["intern_prefix"]:  # of a section
            return describe(f, markers, **given)
        key = f, frozenset(markers), *(str(each) for each in given.values())
        if key not in described:
            described[key] = describe(f, markers, **given)
        return described[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ParserSpecification, "from_callable_or_type", staticmethod(once))
        yield


@pytest.fixture
def optimised() -> Iterator[None]:
    """What the test compiles is optimised as users' programs are."""
    import jax

    jax.config.update(COMPILE_QUICKLY, False)
    yield
    jax.config.update(COMPILE_QUICKLY, True)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, also where a shell started this process to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def torchvision_package() -> Any:
    """torchvision where it is installed beside torch; else the test is skipped."""
    pytest.importorskip("torch", reason="torch is not installed")
    from benchmarks.peers import vision

    try:
        return vision.load()
    except ModuleNotFoundError:
        pytest.skip("torchvision is not installed")


@pytest.fixture(scope="session")
def original() -> Callable[[str], pathlib.Path]:
    """`original("mnist")`: that folder of JAXRES_ORIGINALS; without it the test is skipped."""

    def find(name: str) -> pathlib.Path:
        root = os.environ.get("JAXRES_ORIGINALS")
        if not root:
            pytest.skip("JAXRES_ORIGINALS is not set: no real data to test on")
        folder = pathlib.Path(root) / name
        if not folder.is_dir():
            pytest.skip(f"JAXRES_ORIGINALS has no folder '{name}'")
        return folder

    return find


TINY_FLAGS = [
    "--model.name=tiny",
    "--data.canvas=32",
    "--data.digit-side=24",
    "--data.batch-size=32",
    "--optim.learning-rate=3e-3",
    "--train.epochs=2",
    "--train.limit-train-examples=320",
    "--train.limit-eval-examples=50",
    "--train.log-every-steps=4",
]


@pytest.fixture
def tiny_flags() -> list[str]:
    """Settings of a run of 2 epochs of 10 steps that takes seconds."""
    return list(TINY_FLAGS)


@pytest.fixture
def tiny_config(tiny_flags: list[str]):
    """`make(*flags)`: the settings of that run with more flags on top."""
    from jaxres.config import Config, recipe
    from tests import tiny

    assert tiny.Tiny

    def make(*flags: str) -> Config:
        return recipe.parse(Config, [*tiny_flags, *flags], prog="test")

    return make


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[pathlib.Path]:
    """Run directories `first` and `second`, which differ in their learning rate and seed."""
    from jaxres.config import Config, recipe
    from jaxres.training import loop
    from tests import tiny

    assert tiny.Tiny
    folder = tmp_path_factory.mktemp("runs")
    made = []
    for name, flags in (
        ("first", ["--train.seed=0"]),
        ("second", ["--train.seed=1", "--optim.learning-rate=1e-3"]),
    ):
        config = recipe.parse(Config, [*TINY_FLAGS, *flags], prog="test")
        loop.train(config, folder / name)
        made.append(folder / name)
    return made
