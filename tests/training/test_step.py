"""One step function, compiled either way, on one device and on four."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.traced import equations
from jaxres.config import Config
from jaxres.config.train import TrainConfig
from jaxres.data.pictures import open_split
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


def run(config: Config, *, devices: int, steps: int = 5) -> tuple[dict[str, np.ndarray], Any]:
    """Metrics of the first steps, and the state after them."""
    pictures = open_split(config, "train")
    batches = train_batches(pictures, config)
    total = config.train.epochs * batches.steps_per_epoch
    net = network(config, classes=10)
    optimizer = optim.create(config.optim, total)
    rate = optim.learning_rate(config.optim, total)
    mesh = make_mesh(devices)
    way = strategy.create(config.train, mesh)
    ema = config.optim.ema_decay > 0
    state = way.enter(replicate(mesh, new_state(net.params, net.stats, optimizer, ema=ema)))
    resident = way.put_resident(resident_of(pictures))
    call = way.compile(step.make_train_step(net, optimizer, rate, config), 1)
    rows = []
    for _ in range(steps):
        state, metrics = call(state, resident, way.put_batch(next(batches), 1))
        rows.append(way.fetch(metrics))
    metrics = {key: np.concatenate([row[key] for row in rows]) for key in rows[0]}
    return metrics, jax.device_get(way.leave(state))


def assert_close(ours: Any, theirs: Any, rtol: float, atol: float) -> None:
    for (path, one), other in zip(
        jax.tree.leaves_with_path(ours), jax.tree.leaves(theirs), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol, atol, err_msg=jax.tree_util.keystr(path))


# Averages over four parts of 8 and over one of 32 add the same float32 numbers in another order:
# an error of some units in the last place (1.2e-7 of 1), which 5 steps of SGD carry along. A wrong
# average would be off by the spread between devices, 1e-2 and more (see the test after next).
@pytest.mark.parametrize("mode", ["jit", "pmap"])
@pytest.mark.parametrize("render", ["device", "host"])
def test_four_devices_with_shared_statistics_train_as_one_device(
    tiny_config, mode: str, render: str
) -> None:
    flags = ["--model.sync-batch-norm=True", "--optim.name=sgd", f"--data.render={render}"]
    one, one_state = run(tiny_config(*flags), devices=1)
    four, four_state = run(tiny_config(*flags, f"--train.parallel={mode}"), devices=4)
    np.testing.assert_allclose(four["loss"], one["loss"], rtol=2e-6)
    np.testing.assert_array_equal(four["accuracy"], one["accuracy"])
    assert_close(four_state, one_state, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sync", [True, False])
def test_jit_and_pmap_give_the_same_numbers(tiny_config, sync: bool) -> None:
    flags = [f"--model.sync-batch-norm={sync}", "--model.dropout=0.3", "--optim.ema-decay=0.9"]
    jit, jit_state = run(tiny_config(*flags), devices=4)
    pmap, pmap_state = run(tiny_config(*flags, "--train.parallel=pmap"), devices=4)
    np.testing.assert_allclose(pmap["loss"], jit["loss"], rtol=1e-6)
    assert_close(pmap_state, jit_state, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_ordered_sums_give_the_same_means(tiny_config, mode: str) -> None:
    # SGD: Adam divides by the gradient's size, so that rounding decides where a gradient is tiny.
    flags = ["--optim.name=sgd", f"--train.parallel={mode}"]
    _, ordered = run(tiny_config(*flags, "--train.reduction=ordered"), devices=4)
    _, any_order = run(tiny_config(*flags), devices=4)
    assert_close(ordered, any_order, rtol=1e-5, atol=1e-6)


def test_a_network_learns_32_pictures_by_heart(tiny_config) -> None:
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


def test_several_steps_per_call_equal_single_steps(tiny_config) -> None:
    from jaxres.data.feed import Feed

    config = tiny_config("--model.dropout=0.3", "--optim.name=sgd")
    _, straight = run(config, devices=4, steps=6)
    pictures = open_split(config, "train")
    for mode in ("jit", "pmap"):
        batches = train_batches(pictures, config)
        net = network(config, classes=10)
        optimizer = optim.create(config.optim, 20)
        way = strategy.create(TrainConfig(parallel=mode), make_mesh(4))
        start = new_state(net.params, net.stats, optimizer, ema=False)
        state = way.enter(replicate(way.mesh, start))
        rate = optim.learning_rate(config.optim, 20)
        call = way.compile(step.make_train_step(net, optimizer, rate, config), 3)
        resident = way.put_resident(resident_of(pictures))
        for batch, _ in Feed(batches, [3, 3], way.put_batch, depth=1):
            state, metrics = call(state, resident, batch)
            assert way.fetch(metrics)["loss"].shape == (3,)
        assert_close(jax.device_get(way.leave(state)), straight, rtol=1e-5, atol=1e-6)


def test_accumulated_gradients_are_the_mean_over_the_parts(tiny_config) -> None:
    # Four parts on one device see the batch norm statistics that four devices see.
    flags = ["--optim.name=sgd"]
    four, four_state = run(tiny_config(*flags), devices=4, steps=1)
    parts, parts_state = run(tiny_config(*flags, "--optim.accumulate-steps=4"), devices=1, steps=1)
    np.testing.assert_allclose(parts["loss"], four["loss"], rtol=1e-6)
    for kind in ("params", "stats"):
        assert_close(getattr(parts_state, kind), getattr(four_state, kind), rtol=1e-5, atol=1e-6)


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
    pictures = open_split(config, "train")
    way = strategy.Jit(make_mesh(4))
    state = replicate(way.mesh, new_state(net.params, net.stats, optimizer, ema=False))
    batches = train_batches(pictures, config)
    resident = way.put_resident(resident_of(pictures))
    for _ in range(2):
        state, _ = call(state, resident, way.put_batch(next(batches), 1))
    jax.effects_barrier()
    assert len(seen) == len(set(seen)) == 8


def test_the_step_is_traced_once_and_reads_nothing_back(tiny_config) -> None:
    config = tiny_config()
    traces = []
    net = network(config, classes=10)

    def apply(*arguments, **options):
        traces.append(1)
        return net.apply(*arguments, **options)

    optimizer = optim.create(config.optim, 20)
    rate = optim.learning_rate(config.optim, 20)
    pictures = open_split(config, "train")
    batches = train_batches(pictures, config)
    way = strategy.Jit(make_mesh(4))
    counted = net._replace(apply=apply)
    call = way.compile(step.make_train_step(counted, optimizer, rate, config), 1)
    state = replicate(way.mesh, new_state(net.params, net.stats, optimizer, ema=False))
    with jax.transfer_guard("disallow"):
        resident = way.put_resident(resident_of(pictures))
        for batch in batches:
            state, _ = call(state, resident, way.put_batch(batch, 1))
    assert len(traces) == 1


def test_the_state_is_donated(tiny_config) -> None:
    config = tiny_config()
    net = network(config, classes=10)
    optimizer = optim.create(config.optim, 20)
    way = strategy.Jit(make_mesh(1))
    rate = optim.learning_rate(config.optim, 20)
    call = way.compile(step.make_train_step(net, optimizer, rate, config), 1)
    state = replicate(way.mesh, new_state(net.params, net.stats, optimizer, ema=False))
    kept = way.leave(state)
    pictures = open_split(config, "train")
    batch = way.put_batch(next(train_batches(pictures, config)), 1)
    call(state, way.put_resident(resident_of(pictures)), batch)
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
        match=r"x 3 accumulation parts; nearest allowed: 12 \(or other train\.devices\)$",
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
        pictures = open_split(config, "test")
        monkeypatch.setattr(jax, "jit", jit)
        strategy.create(config.train, mesh).compile(lambda state, resident, batch: (state, {}), 1)
        Evaluator(net, config, mesh).on(pictures)
    wanted = {"xla_gpu_deterministic_ops": True} if deterministic else {}
    assert [each for each in options if each is not None] == [wanted] * 3


@pytest.mark.parametrize(
    "flags",
    [
        ("--model.name=resnet50", "--data.canvas=64"),
        ("--model.name=vgg16", "--data.canvas=64", "--train.on-nan=skip"),
        ("--model.name=mobilenet_v2", "--data.canvas=64", "--optim.label-smoothing=0.1"),
        ("--model.name=de_novo_cnn", "--data.composition=scatter_digits", "--data.canvas=64"),
    ],
    ids=lambda flags: flags[0].partition("=")[2],
)
def test_nothing_in_a_gpus_step_adds_in_any_order(tiny_config, flags) -> None:
    """A GPU scatters with atomic additions: sums that differ from run to run."""
    config = tiny_config(*flags)
    pictures = open_split(config, "train")
    net = abstract_network(config, classes=10)
    optimizer = optim.create(config.optim, 10)
    state = jax.eval_shape(
        lambda: new_state(net.params, net.stats, optimizer, ema=False, trained=None)
    )
    made = step.make_train_step(net, optimizer, optim.learning_rate(config.optim, 10), config)
    batch = next(train_batches(pictures, config))
    with target_backend("gpu"):
        call: Any = strategy.Jit(make_mesh(1)).compile(made, 1)
        program = call.trace(state, resident_of(pictures), batch).jaxpr.jaxpr
    scatters = ("scatter-add", "scatter_add", "scatter", "scatter-mul", "select_and_scatter_add")
    found = [
        equation
        for equation in equations(program, *scatters)
        if not equation.params.get("unique_indices")
    ]
    assert not found
