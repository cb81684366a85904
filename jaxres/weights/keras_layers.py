"""The layers of Keras's weight files, read by a process of its own (`hdf5.py`)."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

import jaxres

ARCHIVE_MEMBER = "model.weights.h5"
SECONDS = 30
BYTES_PER_SECOND = 20e6  # of a slow disk


class Layers(NamedTuple):
    """The variables of a model's layers, named LAYER/NUMBER: a layer's variables count from 0.

    In a `.h5` file a layer has its own name (`named`), and the layers are in the model's order. In
    `.weights.h5` and `.keras` files it has its class's, in snake case and from the second of its
    class on with a number (`conv2d`, `conv2d_1`, ...), and the order says nothing.
    """

    named: bool
    arrays: dict[str, np.ndarray]


def read(path: Path) -> Layers:
    """The layers of a `.h5`, `.weights.h5` or `.keras` file; they take no more than its size.

    Raises:
        ValueError: it is truncated or damaged, leads to other files, or holds nested models.
    """
    limit = SECONDS + path.stat().st_size / BYTES_PER_SECOND
    # -P: the folder that one happens to be in must not provide modules.
    command = [sys.executable, "-P", "-m", "jaxres.weights.hdf5", str(path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(jaxres.__file__).resolve().parents[1])}
    try:
        child = subprocess.run(
            command, capture_output=True, timeout=limit, check=False, env=environment
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"reading it does not end within {limit:.0f} s: it is damaged") from None
    if child.returncode != 0:
        errors = child.stderr.decode(errors="replace").strip().splitlines()
        raise ValueError(errors[-1] if errors else f"the HDF5 library failed ({child.returncode})")
    with np.load(io.BytesIO(child.stdout)) as arrays:
        return Layers(bool(arrays["named"]), {k: arrays[k] for k in arrays.files if k != "named"})
