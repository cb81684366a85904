"""Every network of the registry trains one step and evaluates on four devices."""

from typing import Any, Literal

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxres.config import Config, DataConfig, ModelConfig, OptimConfig
from jaxres.distributed import strategy
from jaxres.distributed.mesh import AXIS, make_mesh, replicate
from jaxres.evaluation.step import make_eval_step
from jaxres.models import registry
from jaxres.models.build import abstract_network
from jaxres.models.pure import flatten, unflatten
from jaxres.ops.conv import force_lowering
from jaxres.training import optim
from jaxres.training.state import new_state
from jaxres.training.step import make_train_step
from tests.marked import networks
from tests.models import drawn

DEVICES, CLASSES = 4, 10
BATCH = 2 * DEVICES
# Networks that compile soon. The others run with `-m slow` and are traced always, but for those
# like others; `test_golden.py` runs one of each family always.
FAST = (
    "all_cnn_small",
    "two_conv_cnn",
    "handbook_mlp",
)
SLOW = [name for name in registry.list_models() if name not in FAST]


class Run:
    """A network with images of its smallest size, two for each device; nothing computed yet."""

    def __init__(self, name: str, *, head: Literal["flatten"] | None = None):
        size = registry.smallest_image(name)
        self.config = Config(
            data=DataConfig(batch_size=BATCH, canvas=size, digit_side=(size // 2,)),
            model=ModelConfig(name=name, head=head),
            optim=OptimConfig(name="sgd", learning_rate=1.0, momentum=0.0),
        )
        self.net = abstract_network(self.config, classes=CLASSES)
        self.optimizer = optim.create(self.config.optim, 1)
        rate = optim.learning_rate(self.config.optim, 1)
        step = make_train_step(self.net, self.optimizer, rate, self.config)
        self.parallel = strategy.Jit(make_mesh(DEVICES))
        self.train = self.parallel.compile(step, 1)
        evaluates = make_eval_step(self.net, self.config)
        self.evaluate = jax.shard_map(
            lambda state, images, labels: evaluates(state.variables, images, labels),
            mesh=self.parallel.mesh,
            in_specs=(P(), P(AXIS), P(AXIS)),
            out_specs=P(AXIS),
            check_vma=False,
        )
        images = 128 + 127 * drawn.draw("images", (BATCH, size, size, 3))
        self.batch = {"image": images.astype(np.uint8), "label": np.arange(BATCH, dtype=np.int32)}

    def state(self, params: Any, stats: Any) -> Any:
        """The state before the first step."""
        return new_state(params, stats, self.optimizer, ema=False)


@pytest.mark.parametrize("name", networks([*FAST, *SLOW], SLOW))
def test_trains_and_evaluates(name: str) -> None:
    # VGG's own head has 100 million weights.
    run = Run(name, head="flatten" if name.startswith("vgg") else None)
    weights = drawn.weights(run.net)
    params, stats = (
        unflatten({path: weights[path] for path in flatten(tree)})
        for tree in (run.net.params, run.net.stats)
    )
    state = replicate(run.parallel.mesh, run.state(params, stats))
    batch = run.parallel.put_batch(run.batch, 1)
    # Every lowering has tests of its own; this one is quick both to compile and to run.
    with force_lowering("patches"):
        evaluates = jax.jit(run.evaluate).lower(state, batch["image"], batch["label"])
        trains = run.train.lower(state, None, batch)
    found = evaluates.compile()(state, batch["image"], batch["label"])
    assert np.all(np.isfinite(found["loss"]))
    assert found["loss"].shape == found["predicted"].shape == (BATCH,)
    new, metrics = jax.device_get(trains.compile()(state, None, batch))
    assert new.step == 1
    assert np.isfinite(metrics["loss"])
    moved = flatten(new.params) | flatten(new.stats)
    assert all(np.all(np.isfinite(values)) for values in moved.values())
    still = {path for path, values in moved.items() if np.array_equal(values, weights[path])}
    # The bias of a convolution before batch norm has no effect.
    assert all(path.endswith("conv.bias") for path in still)


@pytest.mark.parametrize("name", networks(SLOW))
def test_the_step_of_a_large_network_is_traced(name: str) -> None:
    run = Run(name)
    before = jax.eval_shape(run.state, run.net.params, run.net.stats)
    with force_lowering("xla"):
        after, metrics = jax.eval_shape(run.train, before, None, run.batch)
        found = jax.eval_shape(run.evaluate, before, run.batch["image"], run.batch["label"])
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), before
    )
    assert metrics["loss"].shape == ()
    assert found["loss"].shape == (BATCH,)
