import jax
import numpy as np
import pytest

from benchmarks.timing.synthetic import Training
from jaxres.runtime.errors import InputError
from tests.marked import slow


@pytest.mark.parametrize("parallel", ["jit", slow("pmap")])
def test_every_step_asked_for_is_run(tiny_config, parallel):
    config = tiny_config(f"--train.parallel={parallel}", "--train.steps-per-call=2")
    training = Training(config, classes=10, devices=2)
    before = training.parallel.leave(training.state)
    training.run(4)
    assert training.dispatch_s() > 0
    after = training.parallel.leave(training.state)
    assert (int(before.step), int(after.step)) == (0, 6)
    moved = jax.tree.map(lambda old, new: bool((old != new).any()), before, after)
    assert all(jax.tree.leaves(moved.params))
    assert training.compile_s > 0
    assert training.compiled.as_text()
    with pytest.raises(ValueError, match="steps is 3; allowed: multiples of 2"):
        training.run(3)


def test_images_are_whole_batches_of_bytes(tiny_config):
    training = Training(tiny_config(), classes=10, devices=1)
    image, label = training.batch["image"], training.batch["label"]
    assert (image.shape, image.dtype) == ((32, 32, 32, 3), np.uint8)
    assert set(np.asarray(label)) <= set(range(10))


def test_devices_that_are_not_there_are_refused(tiny_config):
    with pytest.raises(InputError, match=r"train\.devices is 99"):
        Training(tiny_config(), classes=10, devices=99)
