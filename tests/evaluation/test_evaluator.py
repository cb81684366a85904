import jax
import numpy as np
import pytest

from jaxres.data.composed import open_split
from jaxres.distributed.mesh import make_mesh, replicate
from jaxres.evaluation.evaluator import Evaluator
from jaxres.models.build import network
from jaxres.runtime import compilation
from tests.marked import slow


@pytest.mark.parametrize("render", ["device", slow("host")])
def test_the_padded_tail_counts_for_nothing(tiny_config, render: str) -> None:
    results = []
    # 50 examples: in one batch, in batches that fit, and with tails of 2, 18 and 49 places.
    for batch_size, devices in ((50, 1), (10, 1), (8, 1), (17, 4), (1, 4), (64, 2)):
        config = tiny_config(f"--data.batch-size={batch_size}", f"--data.render={render}")
        net = network(config, classes=10)
        mesh = make_mesh(devices)
        evaluator = Evaluator(net, config, mesh).on(open_split(config, "test"))
        weights = replicate(mesh, {"params": net.params, "stats": net.stats})
        with jax.transfer_guard("disallow"):
            results.append(evaluator(weights))
    for result in results:
        assert result["examples"] == 50
        assert result["confusion"] == results[0]["confusion"]
        assert result["loss"] == pytest.approx(results[0]["loss"], rel=1e-6)


def test_per_example_results_are_in_the_order_of_the_split(tiny_config) -> None:
    config = tiny_config("--data.batch-size=8")
    net = network(config, classes=10)
    dataset = open_split(config, "test")
    evaluator = Evaluator(net, config, make_mesh(1)).on(dataset)
    weights = {"params": net.params, "stats": net.stats}
    results = evaluator.predict(weights)
    metrics = evaluator(weights)
    assert {key: value.shape for key, value in results.items()} == {
        "loss": (50,),
        "predicted": (50,),
        "label": (50,),
    }
    np.testing.assert_array_equal(results["label"], dataset.source.labels)
    assert metrics["accuracy"] == np.mean(results["predicted"] == dataset.source.labels)


def test_one_network_program_serves_every_split(tiny_config) -> None:
    config = tiny_config("--data.batch-size=8", "--train.limit-eval-examples=29")
    net = network(config, classes=10)
    weights = {"params": net.params, "stats": net.stats}
    validation, test = (open_split(config, split) for split in ("validation", "test"))
    mesh = make_mesh(2)
    with compilation.watch() as programs:
        evaluator = Evaluator(net, config, mesh)
        first, second = evaluator.on(validation)(weights), evaluator.on(test)(weights)
    assert [program.name for program in programs].count("jit(step)") == 1
    again = Evaluator(net, config, mesh).on(validation)
    assert first == evaluator.on(validation)(weights) == again(weights)
    assert second == Evaluator(net, config, mesh).on(test)(weights) != first
