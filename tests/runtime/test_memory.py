import platform
import subprocess
import sys

import jax
import pytest

# Faults of the pages of 64 MiB written twice, the second time into what the first one freed.
PROGRAM = """
import resource, sys
import numpy as np
from jaxres.runtime.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def output(mode: str, program: str = PROGRAM) -> int:
    command = [sys.executable, "-c", program, mode]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


# The same of a compiled program that needs 64 MiB in each of 40 calls: how many calls fault it in.
# Where other threads allocate at the same time, a small block takes the place once in a while.
JAX_PROGRAM = """
import resource, sys
import jax, jax.numpy as jnp
from jaxres.runtime.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
images, kernel = jnp.ones((16, 64, 64, 4)), jnp.ones((256, 4))
step = jax.jit(lambda images, kernel: (jnp.tile(images, (1, 1, 1, 64)) @ kernel).sum())
calls = 0
for _ in range(40):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(images, kernel).block_until_ready()
    calls += resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before > 1000
print(calls)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the setting")
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="temporaries are the device's")
def test_a_program_finds_its_temporaries_again():
    assert output("keep", JAX_PROGRAM) < 20
    assert output("leave", JAX_PROGRAM) > 35


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the setting")
def test_memory_freed_once_is_there_again():
    assert output("keep") < 100
    assert output("leave") > 100


def test_other_libraries_are_left_alone(monkeypatch):
    from jaxres.runtime import memory

    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", ""))
    assert memory.keep_freed_memory() is False


LIBRARY = """
import ctypes, logging, pathlib, sys
from ctypes import CDLL
loaded = []
ctypes.CDLL = lambda name, *more, **named: loaded.append(name) or CDLL(name, *more, **named)
hook, level = sys.unraisablehook, logging.getLogger("asyncio").level
from jaxres.config import CheckpointConfig
from jaxres.runtime.errors import InputError
from jaxres.checkpoint import manager
from jaxres.evaluation import evaluator, predict, run
from jaxres.training import loop
folder = pathlib.Path(sys.argv[1])
manager.Checkpoints(folder / "checkpoints", CheckpointConfig()).close()
try:
    run.evaluate(folder)
except InputError as error:
    assert "no finished checkpoint" in str(error)
assert sys.unraisablehook is hook and logging.getLogger("asyncio").level == level
assert None not in loaded, loaded
"""


@pytest.mark.slow
def test_the_library_leaves_the_process_as_it_is(tmp_path):
    subprocess.run([sys.executable, "-c", LIBRARY, str(tmp_path)], check=True)
