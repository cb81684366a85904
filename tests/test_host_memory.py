import platform
import subprocess
import sys

import jax
import pytest

# Faults of the pages of 64 MiB written twice, the second time into what the first one freed.
PROGRAM = """
import resource, sys
import numpy as np
from jaxres.host_memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode: str, program: str = PROGRAM) -> int:
    command = [sys.executable, "-c", program, mode]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


# The same of a compiled program that needs 64 MiB in each call.
JAX_PROGRAM = """
import resource, sys
import jax, jax.numpy as jnp
from jaxres.host_memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
images = jnp.ones((16, 64, 64, 4))
step = jax.jit(lambda images: jnp.sort(jnp.tile(images, (1, 1, 1, 64)), axis=1).sum())
faults = []
for _ in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(images).block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults))  # once in a while another allocation takes the place
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the setting")
@pytest.mark.skipif(jax.default_backend() != "cpu", reason="temporaries are the device's")
def test_a_program_finds_its_temporaries_again():
    assert page_faults("keep", JAX_PROGRAM) < 1000
    assert page_faults("leave", JAX_PROGRAM) > 1000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the setting")
def test_memory_freed_once_is_there_again():
    assert page_faults("keep") < 100
    assert page_faults("leave") > 100


def test_other_libraries_are_left_alone(monkeypatch):
    from jaxres import host_memory

    monkeypatch.setattr(platform, "libc_ver", lambda: ("musl", ""))
    assert host_memory.keep_freed_memory() is False
