"""Every reader on some damaged and made-up inputs: accepted rightly, or refused in a sentence.

The same at length: `python -m tests.faults.fuzz`.
"""

import random
from pathlib import Path

import pytest

from tests.faults.fuzz import campaign
from tests.faults.fuzz.readers import READERS

SEED = random.SystemRandom().randrange(2**32)
INPUTS = 40
# Of readers that take 5 ms and more for an input, one of which starts a process for each.
SLOW = {"keras": 3, "run": 4, "recipe": 12, "flags": 30, "photos": 10, "flowers": 12, "import": 8}
SLOW |= {
    "checkpoint": 7,
    "torch-zip": 25,
    "torch-stream": 25,
    "run-directory": 10,
    "mnist": 15,
    "archives": 10,
    "image-folder": 15,
    "prepared-own": 20,
    "hdf5": 30,
    "contest": 20,
}


@pytest.mark.parametrize("name", READERS)
def test_bad_input_is_refused_or_read_rightly(name: str, tmp_path: Path):
    inputs = SLOW.get(name, INPUTS)
    print(f"again: python -m tests.faults.fuzz --only {name} --inputs {inputs} --seed {SEED}")
    counts = campaign.run(
        name,
        READERS[name].opened,
        inputs=inputs,
        seed=SEED,
        work=tmp_path / "work",
        keep=tmp_path / "kept",
    )
    assert counts.bad == []
    assert counts.inputs >= inputs // 2
    assert counts.kinds["refused"] > 0
