"""A network that compiles in a second, registered as `tiny`; run as a module, the CLI with it.

Run with PLAN_LOG set, it notes in that file what every image of a training batch was made of:
lines of the step, the position in the batch, and a hash of the image's plan and label.
With WORKERS_LIMIT set, data workers may be silent for that many seconds.
"""

import os
import pathlib
import sys
import zlib
from functools import partial

import jax
import numpy as np
from flax import nnx

from jaxres.data import pipeline
from jaxres.data.pipeline import TrainBatch
from jaxres.models import registry
from jaxres.models.blocks import ConvNorm
from jaxres.models.network import Head, Network


class Tiny(Network):
    """Two strided convolutions with batch norm, and a head."""

    smallest_image = 28

    def __init__(self, options, *, rngs):
        layer = partial(
            ConvNorm,
            stride=2,
            padding=1,
            axis_name=options.axis_name,
            dtype=options.dtype,
            rngs=rngs,
        )
        self.conv1 = layer(3, 8, 3)
        self.conv2 = layer(8, 16, 3)
        self.head = Head(16, -(-options.image_size // 4), options, rngs=rngs)

    def features(self, images, *, train, key=None):
        """The last feature maps."""
        maps = nnx.relu(self.tapped("conv1", self.conv1(images, train=train)))
        return nnx.relu(self.tapped("conv2", self.conv2(maps, train=train)))


registry._MODELS["tiny"] = partial(Tiny)

PLAN_LOG, WORKERS_LIMIT = "JAXRES_TEST_PLAN_LOG", "JAXRES_TEST_WORKERS_S"


def note_plans(path: pathlib.Path) -> None:
    """Append to a file what batches are made of from now on."""
    make = TrainBatch.__call__

    def noted(self: TrainBatch, step: int):
        batch = make(self, step)
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(batch)]
        first = self.process * self.batch_size // self.processes
        with path.open("a") as file:
            for row in range(len(batch["label"])):
                crc = zlib.crc32(b"".join(leaf[row].tobytes() for leaf in leaves))
                file.write(f"{int(step)} {first + row} {crc:08x}\n")
        return batch

    TrainBatch.__call__ = noted


if __name__ == "__main__":
    if PLAN_LOG in os.environ:
        note_plans(pathlib.Path(os.environ[PLAN_LOG]))
    if WORKERS_LIMIT in os.environ:
        pipeline.WORKERS_S = int(os.environ[WORKERS_LIMIT])
    from jaxres.cli.main import main

    sys.exit(main())
