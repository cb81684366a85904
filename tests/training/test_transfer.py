"""Freezing, unfreezing, learning rates by name, and starting from another run's weights."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from jaxres.checkpoint.reader import open_run
from jaxres.config import Config, TransferConfig
from jaxres.data.composed import open_split
from jaxres.data.pipeline import train_batches
from jaxres.distributed import strategy
from jaxres.distributed.mesh import make_mesh, replicate
from jaxres.evaluation import run as runs
from jaxres.evaluation.evaluator import resident_of
from jaxres.models.build import network
from jaxres.models.pure import abstract_net, flatten
from jaxres.runtime.errors import InputError
from jaxres.training import loop, optim, transfer
from jaxres.training.state import new_state
from jaxres.training.step import make_train_step
from tests.training.unplug import unplugged_at

BODY = {f"conv{k}.{name}" for k in (1, 2) for name in ("conv.kernel", "norm.scale", "norm.bias")}
HEAD = {"head.linear.kernel", "head.linear.bias"}
STEPS = 10  # per epoch of the tiny run


@pytest.fixture(scope="module")
def net():
    from tests import tiny

    assert tiny.Tiny
    return abstract_net("tiny", classes=10, image_size=32)


def starts(net, **settings) -> dict[str, int]:
    return dict(transfer.start_epochs(TransferConfig(**settings), net, 32))


def names(trained: dict[str, int], epoch: int = 0) -> set[str]:
    return {name for name, start in trained.items() if start <= epoch}


def test_layers_are_in_the_order_of_the_network(net):
    assert transfer.layers(net, 32) == [
        ["conv1.conv.kernel", "conv1.norm.scale", "conv1.norm.bias"],
        ["conv2.conv.kernel", "conv2.norm.scale", "conv2.norm.bias"],
        ["head.linear.kernel", "head.linear.bias"],
    ]
    vgg = transfer.layers(abstract_net("vgg16", classes=10, image_size=32), 32)
    assert [layer[0] for layer in vgg] == [
        *(f"convs.{k}.kernel" for k in range(13)),
        *("head.dense.0.kernel", "head.dense.1.kernel", "head.linear.kernel"),
    ]
    # Every parameter belongs to a layer, whatever the network's branches.
    branched = abstract_net("shufflenet_v2_x0_5", classes=10, image_size=32)
    listed = [name for layer in transfer.layers(branched, 32) for name in layer]
    assert sorted(listed) == sorted(flatten(branched.params))


def test_what_trains_when(net):
    assert names(starts(net)) == BODY | HEAD
    first = {name for name in BODY if name.startswith("conv1")}
    assert names(starts(net, freeze_layers=1)) == (BODY | HEAD) - first
    assert names(starts(net, freeze=("conv*",))) == HEAD
    gradual = starts(net, freeze=("conv*",), unfreeze=("2:*", "1:conv2.*"))
    assert names(gradual, 0) == HEAD
    assert names(gradual, 1) == HEAD | (BODY - first)
    assert names(gradual, 2) == BODY | HEAD
    never = starts(net, freeze=("conv*",), unfreeze=("1:*norm*",))
    assert names(never, 99) == HEAD | {name for name in BODY if "norm" in name}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"freeze_layers": 3}, "freeze_layers is 3; allowed for this network: 0 to 2"),
        ({"freeze": ("stem*",)}, r"transfer.freeze has 'stem\*', which matches no parameter"),
        ({"freeze": ("*",)}, "freezes every parameter; allowed: at least one"),
        (
            {"freeze": ("conv1*",), "unfreeze": ("1:conv2*",)},
            r"transfer.unfreeze has 'conv2\*', which matches no frozen parameter",
        ),
    ],
)
def test_settings_that_do_not_fit_the_network_are_named(net, settings, message):
    with pytest.raises(InputError, match=message):
        starts(net, **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"freeze_layers": -1}, "freeze_layers is -1; allowed: 0 or more"),
        ({"freeze": ("a",), "unfreeze": ("conv2*",)}, r"'conv2\*'; allowed: EPOCH:PATTERN"),
        ({"freeze": ("a",), "unfreeze": ("0:x",)}, "'0:x'; allowed: EPOCH:PATTERN"),
        ({"unfreeze": ("1:x",)}, "nothing is frozen: give transfer.freeze too"),
        ({"rates": ("conv1",)}, "'conv1'; allowed: PATTERN:FACTOR"),
        ({"rates": ("conv1:-1",)}, "'conv1:-1'; allowed: PATTERN:FACTOR above 0"),
        ({"rates": ("conv1:nan",)}, "'conv1:nan'; allowed"),
    ],
)
def test_misspelled_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        TransferConfig(**settings)


class Steps:
    """Single steps of a run on one device, as the loop makes them."""

    def __init__(self, config: Config):
        dataset = open_split(config, "train")
        self.batches = train_batches(dataset, config)
        self.net = network(config, classes=10)
        # Copies: the step takes its state's buffers.
        self.first = {
            kind: {name: np.array(leaf) for name, leaf in flatten(tree).items()}
            for kind, tree in (("params", self.net.params), ("stats", self.net.stats))
        }
        mesh = make_mesh(1)
        self.parallel = strategy.Jit(mesh)
        stage = transfer.first_phase(config, self.net, 2 * STEPS)
        self.state = replicate(
            mesh,
            new_state(
                self.net.params, self.net.stats, stage.optimizer, ema=False, trained=stage.trained
            ),
        )
        self.resident = self.parallel.put_resident(resident_of(dataset))
        rate = optim.learning_rate(config.optim, 2 * STEPS)
        step = make_train_step(self.net, stage.optimizer, rate, config, trained=stage.trained)
        self.call = self.parallel.compile(step, 1)

    def run(self, steps: int) -> dict[str, dict[str, Any]]:
        for _ in range(steps):
            batch = self.parallel.put_batch(next(self.batches), 1)
            self.state, _ = self.call(self.state, self.resident, batch)
        state = jax.device_get(self.state)
        return {key: flatten(getattr(state, key)) for key in ("params", "stats")}

    def compiled(self) -> Any:
        batch = self.parallel.put_batch(next(self.batches), 1)
        return self.call.lower(self.state, self.resident, batch).compile()


def test_what_is_frozen_stays_and_its_norms_keep_their_statistics(tiny_config):
    steps = Steps(tiny_config("--transfer.freeze", "conv1.*", "--optim.weight-decay=0.1"))
    after = steps.run(3)
    for kind in ("params", "stats"):
        for name, leaf in after[kind].items():
            same = np.array_equal(leaf, steps.first[kind][name])
            assert same == name.startswith("conv1."), name
    moments = flatten(steps.state.opt_state[0].mu)
    assert set(moments) == (BODY | HEAD) - {n for n in BODY if n.startswith("conv1.")}


def test_a_frozen_norm_normalises_by_its_running_statistics(tiny_config):
    """So a frozen body gives a head what it gives in evaluation."""
    config = tiny_config("--transfer.freeze", "conv*", "--optim.name=sgd", "--optim.momentum=0")
    steps = Steps(config)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(4, 32, 32, 3)), jnp.float32)
    frozen = transfer.frozen_norms(steps.net.stats, frozenset(HEAD))
    assert frozen == {"conv1.norm", "conv2.norm"}
    variables = (steps.net.params, steps.net.stats)
    trained, stats = steps.net.apply(*variables, images, train=True, frozen_norms=frozen)
    evaluated, _ = steps.net.apply(*variables, images, train=False)
    np.testing.assert_array_equal(trained, evaluated)
    assert jax.tree.all(jax.tree.map(np.array_equal, stats, steps.net.stats))


def test_frozen_layers_cost_no_gradient_and_no_state(tiny_config):
    whole = Steps(tiny_config()).compiled()
    frozen = Steps(tiny_config("--transfer.freeze", "conv*")).compiled()
    (flops, fewer) = (made.cost_analysis()["flops"] for made in (whole, frozen))
    assert fewer < 0.6 * flops  # a third is the forward pass, and rendering is in both
    (memory, less) = (made.memory_analysis() for made in (whole, frozen))
    assert less.temp_size_in_bytes < 0.8 * memory.temp_size_in_bytes
    assert less.argument_size_in_bytes < memory.argument_size_in_bytes


@pytest.mark.slow
def test_rates_are_factors_of_the_learning_rate_and_the_first_match_counts(tiny_config):
    flags = ["--optim.name=sgd", "--optim.momentum=0"]
    plain = Steps(tiny_config(*flags))
    slow = Steps(tiny_config(*flags, "--transfer.rates", "conv1.*:0.25", "conv*:0.5"))
    ours, theirs = plain.run(1)["params"], slow.run(1)["params"]
    for name, start in plain.first["params"].items():
        factor = 0.25 if name.startswith("conv1.") else 0.5 if name.startswith("conv2.") else 1.0
        moved = factor * (np.float64(ours[name]) - start)
        np.testing.assert_allclose(theirs[name], start + moved, rtol=1e-5, atol=1e-7)


def test_a_rate_for_nothing_is_named(tiny_config):
    with pytest.raises(InputError, match=r"transfer.rates has 'stem\*', which matches no"):
        Steps(tiny_config("--transfer.rates", "stem*:0.1"))


@pytest.mark.slow
def test_parameters_that_start_late_have_an_optimiser_state_of_their_own(tiny_config, net):
    """Adam's first step is the learning rate's size, also for what is unfrozen in step 10."""
    config = tiny_config(
        *("--transfer.freeze", "conv*", "--transfer.unfreeze", "1:conv*"),
        *("--optim.name=adam", "--optim.schedule=cosine", "--optim.clip-norm=1e9"),
    )
    starts = transfer.start_epochs(config.transfer, net, 32)
    first, second = (
        transfer.phase(config, starts, epoch, total_steps=2 * STEPS) for epoch in (0, 1)
    )
    assert first.trained == HEAD
    assert second.trained is None
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), net.params)
    grads = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01), net.params)
    head, head_grads = (transfer.split(tree, first.trained)[0] for tree in (params, grads))
    state = first.optimizer.init(head)
    for _ in range(STEPS):
        _, state = first.optimizer.update(head_grads, state, head)
    state = transfer.grown(state, second.optimizer.init(params))
    assert set(state) == {"0", "1"}
    updates, _ = second.optimizer.update(grads, optim.at_step(state, jnp.int32(STEPS)), params)
    rate = float(optim.learning_rate(config.optim, 2 * STEPS)(STEPS))
    for name, update in flatten(updates).items():
        np.testing.assert_allclose(update, -rate, rtol=1e-3, err_msg=name)


# At the boundary of the first unfreezing; and in the midst of the phase, and before the last one.
@pytest.mark.parametrize(
    ("mode", "steps"),
    [
        ("jit", [STEPS]),
        ("jit", [STEPS + 5, 2 * STEPS]),
        ("pmap", [STEPS, STEPS + 5, 2 * STEPS]),
    ],
)
@pytest.mark.slow
def test_unfreezing_survives_resume_bit_for_bit(
    tiny_config, tmp_path: pathlib.Path, mode: str, steps: list[int]
) -> None:
    config = tiny_config(
        *("--transfer.freeze", "conv*", "--transfer.unfreeze", "1:conv2.*", "2:conv1.*"),
        *(f"--train.parallel={mode}", "--train.epochs=3", "--checkpoint.keep-last=9"),
        *("--checkpoint.every-steps=4", "--optim.ema-decay=0.9"),
    )
    loop.train(config, tmp_path / "straight")
    for step in steps:
        with unplugged_at(step):
            loop.train(config, tmp_path / "broken")
    loop.train(config, tmp_path / "broken")
    ends = [
        flatten(open_run(tmp_path / name).read_weights(3 * STEPS, _single()))
        for name in ("straight", "broken")
    ]
    assert ends[0].keys() == ends[1].keys()
    for name, leaf in ends[0].items():
        np.testing.assert_array_equal(leaf, ends[1][name], err_msg=name)


def _single() -> jax.sharding.Sharding:
    return jax.sharding.SingleDeviceSharding(jax.devices()[0])


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory) -> pathlib.Path:
    from jaxres.config import recipe
    from tests import conftest, tiny

    assert tiny.Tiny
    folder = tmp_path_factory.mktemp("init") / "run"
    flags = [*conftest.TINY_FLAGS, "--data.mean", "0.4", "0.5", "0.6", "--train.epochs=1"]
    loop.train(recipe.parse(Config, flags, prog="test"), folder)
    return folder


def test_a_run_starts_from_anothers_weights_and_normalisation(
    tiny_config, trained_run: pathlib.Path, tmp_path: pathlib.Path, capfd
) -> None:
    config = tiny_config(
        *(f"--model.init-from={trained_run}", "--optim.learning-rate=1e-12", "--optim.name=sgd"),
        *("--train.epochs=1", "--transfer.freeze", "conv*"),
    )
    loop.train(config, tmp_path / "run")
    assert f"starting from the weights of '{trained_run}'\n" in capfd.readouterr().err
    settings = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert settings["data"]["mean"] == [0.4, 0.5, 0.6]
    assert settings["data"]["std"] is None
    ours, theirs = (
        flatten(open_run(folder).read_weights(STEPS, _single()))
        for folder in (tmp_path / "run", trained_run)
    )
    for name, leaf in theirs.items():
        np.testing.assert_allclose(ours[name], leaf, atol=1e-7, err_msg=name)
    one, other = (runs.evaluate(folder) for folder in (tmp_path / "run", trained_run))
    assert one["confusion"] == other["confusion"]
    # Going on needs the settings only, not the run that it started from.
    again = tiny_config(
        *(f"--model.init-from={trained_run}", "--optim.learning-rate=1e-12", "--optim.name=sgd"),
        *("--train.epochs=1", "--transfer.freeze", "conv*"),
    )
    trained_run.rename(trained_run.with_name("away"))
    loop.train(again, tmp_path / "run")
    trained_run.with_name("away").rename(trained_run)


@pytest.mark.slow
def test_the_head_is_replaced_where_it_does_not_fit(
    tiny_config, trained_run: pathlib.Path, tmp_path: pathlib.Path, capfd
) -> None:
    config = tiny_config(
        *(f"--model.init-from={trained_run}", "--model.dense", "12", "--data.mean", "0", "0", "0"),
        *("--train.epochs=1", "--transfer.freeze", "conv*"),
    )
    loop.train(config, tmp_path / "run")
    assert "but for a new head" in capfd.readouterr().err
    ours = flatten(open_run(tmp_path / "run").read_weights(STEPS, _single()))
    theirs = flatten(open_run(trained_run).read_weights(STEPS, _single()))
    assert ours["params.head.dense.0.kernel"].shape == (16, 12)
    for name in BODY:
        np.testing.assert_array_equal(ours[f"params.{name}"], theirs[f"params.{name}"])
    settings = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert settings["data"]["mean"] == [0.0, 0.0, 0.0]


@pytest.mark.slow
def test_a_head_that_fits_can_be_left_out(
    tiny_config, trained_run: pathlib.Path, tmp_path: pathlib.Path, capfd
) -> None:
    flags = [f"--model.init-from={trained_run}", "--train.epochs=1", "--transfer.freeze", "*"]
    with pytest.raises(InputError, match="freezes every parameter"):
        loop.train(tiny_config(*flags), tmp_path / "run")
    flags[-1] = "head*"
    loop.train(tiny_config(*flags, "--model.new-head=True"), tmp_path / "run")
    assert "but for a new head" in capfd.readouterr().err
    config = tiny_config()
    head = flatten(network(config, classes=10).params)["head.linear.kernel"]
    ours = flatten(open_run(tmp_path / "run").read_weights(STEPS, _single()))
    np.testing.assert_array_equal(ours["params.head.linear.kernel"], head)
    with pytest.raises(InputError, match=r"new_head is true but model\.init_from is not given"):
        tiny_config("--model.new-head=True")


def test_weights_that_cannot_be_started_from_are_named(
    tiny_config, trained_run: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    def refused(*flags: str) -> str:
        with pytest.raises(InputError) as caught:
            loop.train(tiny_config(*flags), tmp_path / "run")
        assert not (tmp_path / "run").exists()
        return str(caught.value)

    assert "model.init_from is 'nowhere', which is not a run directory" in refused(
        "--model.init-from=nowhere"
    )
    assert "holds weights of a network other than all_cnn_small" in refused(
        f"--model.init-from={trained_run}", "--model.name=all_cnn_small"
    )
