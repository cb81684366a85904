"""HDF5 at length: the program that reads Keras's files, forked for each rather than started.

Run as a module it is the process that forks: without JAX, so that forking is safe. It reads paths
and answers each with a line of JSON.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from jaxres.runtime.errors import InputError
from tests.faults.fuzz.reader import Reader

SECONDS = 3


@contextlib.contextmanager
def forked(scratch: Path) -> Iterator[Reader]:
    """`jaxres.weights.hdf5.main` on each file; the HDF5 library may crash or hang, but not grow."""
    from tests.faults.fuzz.inputs.weights import keras_contents

    contents = keras_contents(scratch)
    command = [sys.executable, "-m", "tests.faults.fuzz.inputs.hdf5"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None

        def read(source: Path, output: Path) -> None:
            print(source / "file", file=server.stdin, flush=True)
            answer = json.loads(server.stdout.readline())  # pyright: ignore[reportOptionalMemberAccess]
            if answer["peak_mib"] > 256:
                raise MemoryError(f"took {answer['peak_mib']:.0f} MiB")
            if answer["status"]:
                raise InputError(answer["said"] or f"status {answer['status']}")

        yield Reader(contents.map(lambda content: {"file": content}), read)
        server.stdin.close()


def main() -> None:
    """Answer until there are no more paths."""
    import jaxres.weights.hdf5 as program

    devnull = os.open(os.devnull, os.O_WRONLY)
    for line in sys.stdin:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.dup2(devnull, 1)
            os.dup2(writing, 2)
            signal.alarm(SECONDS)
            sys.argv = ["hdf5", line.rstrip("\n")]
            status = program.main()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        os.close(writing)
        with os.fdopen(reading, errors="replace") as pipe:
            said = pipe.read(1 << 16).strip().replace("\n", " ")
        _, status, used = os.wait4(child, 0)
        answer = {"status": status, "said": said[-500:], "peak_mib": used.ru_maxrss / 1024}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
