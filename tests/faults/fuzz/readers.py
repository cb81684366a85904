"""Every reader under trial by its name, and what share of the inputs it gets."""

from typing import NamedTuple

from tests.faults.fuzz.inputs import (
    checkpoints,
    cifar,
    contest,
    flags,
    hdf5,
    idx,
    images,
    own,
    prepared,
    recipes,
    weights,
)
from tests.faults.fuzz.reader import Opened


class Entry(NamedTuple):
    """A reader, and its share of the inputs in proportion to the others'."""

    opened: Opened
    share: int


READERS: dict[str, Entry] = {
    "recipe": Entry(recipes.files, 8),
    "run": Entry(recipes.runs, 2),
    "flags": Entry(flags.words, 8),
    "idx": Entry(idx.one_file, 12),
    "mnist": Entry(idx.mnist, 4),
    "cifar10": Entry(cifar.batches, 6),
    "contest": Entry(contest.train, 12),
    "picture": Entry(images.predicted, 12),
    "photos": Entry(images.photographs, 3),
    "flowers": Entry(images.flower_folders, 4),
    "image-folder": Entry(own.image_folders, 6),
    "archives": Entry(own.archives, 4),
    "csv": Entry(own.csv_files, 8),
    "prepared-own": Entry(own.prepared, 6),
    "prepared-digits": Entry(prepared.digits, 6),
    "prepared-photos": Entry(prepared.photographs, 3),
    "checkpoint": Entry(checkpoints.saved, 6),
    "run-directory": Entry(checkpoints.directories, 4),
    "torch-zip": Entry(weights.torch_zip, 10),
    "torch-stream": Entry(weights.torch_stream, 10),
    "safetensors": Entry(weights.safetensors, 8),
    "hdf5": Entry(hdf5.forked, 8),
    "keras": Entry(weights.keras, 1),
    "import": Entry(weights.imported, 1),
}
