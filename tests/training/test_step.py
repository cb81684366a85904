"""One step function, compiled either way, on one device and on four."""

from typing import Any, Literal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.convolutions.traced import equations
from jaxres.config import Config
from jaxres.config.train import TrainConfig
from jaxres.data.composed import open_split
from jaxres.data.feed import Feed
from jaxres.data.pipeline import train_batches
from jaxres.distributed import strategy
from jaxres.distributed.mesh import check_batch, make_mesh, replicate
from jaxres.evaluation.evaluator import Evaluator, resident_of
from jaxres.models.build import abstract_network, network
from jaxres.models.pure import Net
from jaxres.ops.losses import cross_entropy
from jaxres.ops.target import target_backend
from jaxres.runtime.errors import InputError
from jaxres.training import optim, step
from jaxres.training.state import new_state
from tests.marked import slow


def run(config: Config, *, devices: int, steps: int = 5) -> tuple[dict[str, np.ndarray], Any]:
    """Metrics of the first steps, and the state after them."""
    dataset = open_split(config, "train")
    batches = train_batches(dataset, config)
    total = config.train.epochs * batches.steps_per_epoch
    net = network(config, classes=10)
    optimizer = optim.create(config.optim, total)
    rate = optim.learning_rate(config.optim, total)
    mesh = make_mesh(devices)
    parallel = strategy.create(config.train, mesh)
    ema = config.optim.ema_decay > 0
    state = parallel.enter(replicate(mesh, new_state(net.params, net.stats, optimizer, ema=ema)))
    resident = parallel.put_resident(resident_of(dataset))
    call = parallel.compile(step.make_train_step(net, optimizer, rate, config), 1)
    rows = []
    for _ in range(steps):
        state, metrics = call(state, resident, parallel.put_batch(next(batches), 1))
        rows.append(parallel.fetch(metrics))
    metrics = {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}
    return metrics, jax.device_get(parallel.leave(state))


# Averages over four parts of 8 and over one of 32 add the same float32 numbers in another order:
# an error of some units in the last place (1.2e-7 of 1), which 5 steps of SGD carry along. A wrong
# average would be off by the spread between devices, 1e-2 and more (see the test after next).
@pytest.mark.parametrize(
    ("mode", "render"),
    [("jit", "device"), slow("jit", "host"), slow("pmap", "device"), slow("pmap", "host")],
)
def test_four_devices_with_shared_statistics_train_as_one_device(
    tiny_config, mode: str, render: str
) -> None:
    flags = ["--model.sync-batch-norm=True", "--optim.name=sgd", f"--data.render={render}"]
    one, one_state = run(tiny_config(*flags), devices=1)
    four, four_state = run(tiny_config(*flags, f"--train.parallel={mode}"), devices=4)
    np.testing.assert_allclose(four["loss"], one["loss"], rtol=2e-6)
    np.testing.assert_array_equal(four["accuracy"], one["accuracy"])
    chex.assert_trees_all_close(four_state, one_state, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sync", [True, slow(False)])
def test_jit_and_pmap_give_the_same_numbers(tiny_config, sync: bool) -> None:
    flags = [f"--model.sync-batch-norm={sync}", "--model.dropout=0.3", "--optim.ema-decay=0.9"]
    jit, jit_state = run(tiny_config(*flags), devices=4)
    pmap, pmap_state = run(tiny_config(*flags, "--train.parallel=pmap"), devices=4)
    np.testing.assert_allclose(pmap["loss"], jit["loss"], rtol=1e-6)
    chex.assert_trees_all_close(pmap_state, jit_state, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_ordered_sums_give_the_same_means(tiny_config, mode: str) -> None:
    # SGD: Adam divides by the gradient's size, so that rounding decides where a gradient is tiny.
    flags = ["--optim.name=sgd", f"--train.parallel={mode}"]
    _, ordered = run(tiny_config(*flags, "--train.reduction=ordered"), devices=4)
    _, any_order = run(tiny_config(*flags), devices=4)
    chex.assert_trees_all_close(ordered, any_order, rtol=1e-5, atol=1e-6)


def test_a_network_learns_32_images_by_heart(tiny_config) -> None:
    config = tiny_config(
        "--data.backgrounds=black",
        "--train.limit-train-examples=32",
        "--train.epochs=150",
        "--optim.learning-rate=0.02",
        "--model.head=flatten",
    )
    metrics, _ = run(config, devices=1, steps=150)
    assert metrics["accuracy"][:3].mean() < 0.5
    assert (metrics["accuracy"][-5:] == 1.0).all()
    assert metrics["loss"][-1] < 0.05


def test_statistics_are_per_device_unless_shared(tiny_config) -> None:
    own, _ = run(tiny_config(), devices=4, steps=2)
    shared, _ = run(tiny_config("--model.sync-batch-norm=True"), devices=4, steps=2)
    assert abs(own["loss"][0] - shared["loss"][0]) > 1e-4


@pytest.mark.parametrize("mode", ["jit", slow("pmap")])
def test_several_steps_per_call_equal_single_steps(
    tiny_config, mode: Literal["jit", "pmap"]
) -> None:
    config = tiny_config("--model.dropout=0.3", "--optim.name=sgd")
    _, straight = run(config, devices=4, steps=6)
    dataset = open_split(config, "train")
    batches = train_batches(dataset, config)
    net = network(config, classes=10)
    optimizer = optim.create(config.optim, 20)
    parallel = strategy.create(TrainConfig(parallel=mode), make_mesh(4))
    start = new_state(net.params, net.stats, optimizer, ema=False)
    state = parallel.enter(replicate(parallel.mesh, start))
    rate = optim.learning_rate(config.optim, 20)
    call = parallel.compile(step.make_train_step(net, optimizer, rate, config), 3)
    resident = parallel.put_resident(resident_of(dataset))
    for batch, _ in Feed(batches, [3, 3], parallel.put_batch, depth=1):
        state, metrics = call(state, resident, batch)
        assert parallel.fetch(metrics)["loss"].shape == (3,)
    chex.assert_trees_all_close(
        jax.device_get(parallel.leave(state)), straight, rtol=1e-5, atol=1e-6
    )


def test_accumulated_gradients_are_the_mean_over_the_parts(tiny_config) -> None:
    # Four parts on one device see the batch norm statistics that four devices see.
    flags = ["--optim.name=sgd"]
    four, four_state = run(tiny_config(*flags), devices=4, steps=1)
    parts, parts_state = run(tiny_config(*flags, "--optim.accumulate-steps=4"), devices=1, steps=1)
    np.testing.assert_allclose(parts["loss"], four["loss"], rtol=1e-6)
    for kind in ("params", "stats"):
        chex.assert_trees_all_close(
            getattr(parts_state, kind), getattr(four_state, kind), rtol=1e-5, atol=1e-6
        )


def test_dropout_differs_between_steps_and_devices(tiny_config) -> None:
    seen = []

    def apply(params, stats, images, *, train, key, frozen_norms):
        jax.debug.callback(lambda bits: seen.append(tuple(bits.tolist())), jax.random.key_data(key))
        return images.mean((1, 2, 3))[:, None] * params["w"], stats

    config = tiny_config()
    net = Net({"w": np.zeros(10, np.float32)}, {}, apply)
    optimizer = optim.create(config.optim, 2)
    call = strategy.Jit(make_mesh(4)).compile(
        step.make_train_step(net, optimizer, lambda count: 0.1, config), 1
    )
    dataset = open_split(config, "train")
    parallel = strategy.Jit(make_mesh(4))
    state = replicate(parallel.mesh, new_state(net.params, net.stats, optimizer, ema=False))
    batches = train_batches(dataset, config)
    resident = parallel.put_resident(resident_of(dataset))
    for _ in range(2):
        state, _ = call(state, resident, parallel.put_batch(next(batches), 1))
    jax.effects_barrier()
    assert len(seen) == len(set(seen)) == 8


def test_the_step_is_traced_once_and_reads_nothing_back(tiny_config) -> None:
    config = tiny_config()
    net = network(config, classes=10)
    optimizer = optim.create(config.optim, 20)
    rate = optim.learning_rate(config.optim, 20)
    dataset = open_split(config, "train")
    batches = train_batches(dataset, config)
    parallel = strategy.Jit(make_mesh(4))
    chex.clear_trace_counter()
    train_step: Any = step.make_train_step(net, optimizer, rate, config)
    train_step = chex.assert_max_traces(train_step, n=1)
    call = parallel.compile(train_step, 1)
    state = replicate(parallel.mesh, new_state(net.params, net.stats, optimizer, ema=False))
    with jax.transfer_guard("disallow"):
        resident = parallel.put_resident(resident_of(dataset))
        for batch in batches:
            state, _ = call(state, resident, parallel.put_batch(batch, 1))
    with pytest.raises(AssertionError, match="traced > 1 times"):
        parallel.compile(train_step, 1)(state, resident, parallel.put_batch(batch, 1))


def test_the_state_is_donated(tiny_config) -> None:
    config = tiny_config()
    net = network(config, classes=10)
    optimizer = optim.create(config.optim, 20)
    parallel = strategy.Jit(make_mesh(1))
    rate = optim.learning_rate(config.optim, 20)
    call = parallel.compile(step.make_train_step(net, optimizer, rate, config), 1)
    state = replicate(parallel.mesh, new_state(net.params, net.stats, optimizer, ema=False))
    kept = parallel.leave(state)
    dataset = open_split(config, "train")
    batch = parallel.put_batch(next(train_batches(dataset, config)), 1)
    call(state, parallel.put_resident(resident_of(dataset)), batch)
    assert jax.tree.leaves(state.params)[0].is_deleted()
    assert not jax.tree.leaves(kept.params)[0].is_deleted()


def test_smoothed_cross_entropy_is_szegedys() -> None:
    logits = np.random.default_rng(0).normal(size=(4, 10)).astype(np.float32)
    labels = np.arange(4, dtype=np.int32)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    targets = np.eye(10)[labels] * 0.9 + 0.01
    jax_logits, jax_labels = jnp.asarray(logits), jnp.asarray(labels)
    ours = cross_entropy(jax_logits, jax_labels, smoothing=0.1)
    np.testing.assert_allclose(ours, -(targets * log_p).sum(1), rtol=1e-5)
    plain = cross_entropy(jax_logits, jax_labels)
    np.testing.assert_allclose(plain, -log_p[np.arange(4), labels], rtol=1e-5)


def test_bad_device_counts_and_batches_are_refused() -> None:
    with pytest.raises(InputError, match=r"train\.devices is 9; allowed: 1 to 4"):
        make_mesh(9)
    with pytest.raises(
        InputError, match="does not divide over 4 devices; nearest allowed: 8 or 12"
    ):
        check_batch(10, 4, 1)
    with pytest.raises(
        InputError,
        match=r"x 3 microbatches; nearest allowed: 12 \(or other train\.devices\)$",
    ):
        check_batch(10, 4, 3)
    check_batch(24, 4, 3)


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_gpus_step_and_evaluation_are_compiled_as_asked_for(
    tiny_config, monkeypatch, deterministic
) -> None:
    config = tiny_config(f"--train.deterministic={deterministic}")
    options = []
    jitted = jax.jit

    def jit(*words: Any, **named: Any) -> Any:
        options.append(named.pop("compiler_options", None))
        return jitted(*words, **named)

    mesh = make_mesh(1)
    with target_backend("gpu"):
        net = abstract_network(config, classes=10)
        dataset = open_split(config, "test")
        monkeypatch.setattr(jax, "jit", jit)
        strategy.create(config.train, mesh).compile(lambda state, resident, batch: (state, {}), 1)
        Evaluator(net, config, mesh).on(dataset)
    wanted = {"xla_gpu_deterministic_ops": True} if deterministic else {}
    assert [each for each in options if each is not None] == [wanted] * 3


@pytest.mark.parametrize(
    "flags",
    [
        ("--model.name=resnet50", "--data.canvas=64"),
        ("--model.name=vgg16", "--data.canvas=64", "--train.on-nan=skip"),
        slow(("--model.name=mobilenet_v2", "--data.canvas=64", "--optim.label-smoothing=0.1")),
        slow(("--model.name=de_novo_cnn", "--data.composition=scatter_digits", "--data.canvas=64")),
    ],
    ids=lambda flags: flags[0].partition("=")[2],
)
def test_nothing_in_a_gpus_step_adds_in_any_order(tiny_config, flags) -> None:
    """A GPU scatters with atomic additions: sums that differ from run to run."""
    config = tiny_config(*flags)
    dataset = open_split(config, "train")
    net = abstract_network(config, classes=10)
    optimizer = optim.create(config.optim, 10)
    state = jax.eval_shape(
        lambda: new_state(net.params, net.stats, optimizer, ema=False, trained=None)
    )
    made = step.make_train_step(net, optimizer, optim.learning_rate(config.optim, 10), config)
    batch = next(train_batches(dataset, config))
    with target_backend("gpu"):
        call: Any = strategy.Jit(make_mesh(1)).compile(made, 1)
        program = call.trace(state, resident_of(dataset), batch).jaxpr.jaxpr
    scatters = ("scatter-add", "scatter_add", "scatter", "scatter-mul", "select_and_scatter_add")
    found = [
        equation
        for equation in equations(program, *scatters)
        if not equation.params.get("unique_indices")
    ]
    assert not found
