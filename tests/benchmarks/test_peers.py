import importlib.util
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks import peers
from benchmarks.peers import flax_resnet, variants
from benchmarks.peers.resnets import RESNETS, Residual
from benchmarks.timing.workload import Workload
from jaxres.models import registry
from jaxres.models.families import cnn, resnet
from jaxres.models.pure import abstract_net
from jaxres.models.registry import list_models
from jaxres.ops import norm
from jaxres.runtime.errors import InputError
from tests.marked import slow


def _size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _parameters(name):
    return _size(abstract_net(name, classes=1000, image_size=64).params)


WORK = Workload("resnet18", 32, 4, "float32", 10)


@pytest.mark.parametrize("name", ["resnet18", slow("resnet50"), slow("wide_resnet50_2")])
def test_flax_has_as_many_parameters_as_ours(name):
    model = nnx.eval_shape(
        lambda: flax_resnet.ResNet(RESNETS[name], classes=1000, dtype=jnp.float32, rngs=nnx.Rngs(0))
    )
    assert _size(nnx.state(model, nnx.Param)) == _parameters(name)


@pytest.mark.slow
def test_flax_computes_what_ours_computes():
    """The sizes of all feature maps follow from the convolutions: as much arithmetic as ours."""

    def forward(images):
        model = flax_resnet.ResNet(
            RESNETS["resnet50"], classes=1000, dtype=jnp.float32, rngs=nnx.Rngs(0)
        )
        return model(images)

    images = jnp.zeros((1, 96, 96, 3))
    program = str(jax.make_jaxpr(forward)(images))
    assert program.count("conv_general_dilated[") == 53
    assert jax.eval_shape(forward, images).shape == (1, 1000)


def test_variants_are_the_tables_of_ours():
    assert [*RESNETS] == list_models("resnet*") + list_models("wide_resnet*")
    for name, variant in RESNETS.items():
        ours = registry._MODELS[name]
        assert isinstance(ours, partial)
        block = resnet.Bottleneck if variant.bottleneck else resnet.BasicBlock
        assert ours.args == (block, variant.depths)
        assert ours.keywords.get("width_factor", 1) == variant.width_factor


def test_a_missing_package_is_named_with_its_installation(monkeypatch):
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda package: None)
    with pytest.raises(InputError, match=r"needs the package torch, .*: pip install torch==2"):
        peers.check(["torch_compiled"], ["resnet18"])
    with pytest.raises(InputError, match=r"needs the package keras, .*: pip install '.\[peers\]'"):
        peers.check(["keras"], ["resnet18"])


def test_flax_trains(monkeypatch):
    monkeypatch.setitem(RESNETS, "resnet18", Residual(False, (1, 0, 0, 0)))
    peer = peers.build("flax", WORK, "cpu")
    peer.run(2)
    assert peer.compile_s is not None
    peers.release()


@pytest.mark.slow
def test_derived_norm_is_our_step_with_another_gradient_of_batch_norm():
    random = np.random.default_rng(0)
    images, shortcut = jnp.asarray(random.standard_normal((2, 4, 3, 3, 5)), jnp.float32)
    options = {"epsilon": 1e-5, "relu": True}

    def gradients(batch_norm):
        def total(*arrays):
            return jnp.square(batch_norm(*arrays, **options)[0]).sum()

        arrays = (images, jnp.full(5, 2.0), jnp.ones(5), shortcut)
        return jax.grad(total, argnums=(0, 1, 2, 3))(*arrays)

    found, wanted = gradients(variants.batch_norm), gradients(norm.batch_norm)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    peer = peers.build("derived_norm", WORK._replace(model="all_cnn_small"), "cpu")
    peer.run(1)
    assert peer.settings["peak_memory_mib"] > 0


@pytest.mark.reference
@pytest.mark.parametrize("name", RESNETS)
def test_torch_has_as_many_parameters_as_ours(name):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from benchmarks.peers import torch_resnet

    with torch.device("meta"):
        model = torch_resnet.resnet(RESNETS[name], 1000)
    assert sum(p.numel() for p in model.parameters()) == _parameters(name)


@pytest.mark.reference
@pytest.mark.parametrize("name", ["resnet50", "vgg16_bn", "mobilenet_v2", "shufflenet_v2_x1_0"])
def test_torchvision_has_as_many_parameters_as_ours(name):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    from benchmarks.peers import torch_step

    peers.check(["torch"], [name])
    with torch.device("meta"):
        model, source = torch_step.network(name, 224, 1000)
    assert source.startswith("torchvision ")
    assert sum(p.numel() for p in model.parameters()) == _parameters(name)


@pytest.mark.reference
@pytest.mark.parametrize("name", cnn.MODELS)
def test_torch_has_the_studies_networks_with_as_many_parameters(name):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from benchmarks.peers import torch_step

    with torch.device("meta"):
        model, source = torch_step.network(name, 64, 1000)
        assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 1000)
    assert source == "benchmarks.peers.torch_cnn"
    assert sum(p.numel() for p in model.parameters()) == _parameters(name)


@pytest.mark.reference
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of torch.jit
def test_torch_trains_in_both_dtypes():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    for dtype in ("float32", "bfloat16"):
        peer = peers.build("torch", WORK._replace(dtype=dtype), "cpu")
        peer.run(2)
        assert peer.version == torch.__version__
        assert peer.settings["threads"] >= 1
    with pytest.raises(RuntimeError, match="has no tpu, which JAX uses"):
        peers.build("torch", WORK, "tpu")


@pytest.mark.reference
def test_keras_builds_every_network():
    # Importing keras itself first would choose its backend.
    keras_step = pytest.importorskip("benchmarks.peers.keras_step", reason="keras is not installed")
    model, source = keras_step.network("resnet18", 64, 1000)
    trained = sum(np.prod(weight.shape) for weight in model.trainable_weights)
    assert trained == _parameters("resnet18")
    assert source == "benchmarks.peers.keras_step"
    model, source = keras_step.network("resnet50", 64, 1000)
    trained = sum(np.prod(weight.shape) for weight in model.trainable_weights)
    # Version 1 has biases in its 53 convolutions: as many as there are channels to normalise.
    assert trained == 25_557_032 + 26_560
    assert source == "keras.applications"


@pytest.mark.parametrize("name", ["mobilenet_v2", "vgg16"])
def test_a_network_that_only_torchvision_has_asks_for_it(monkeypatch, name):
    there = {"torch"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name in there or None)
    with pytest.raises(InputError, match=f"{name} from torchvision, which is not installed: pip"):
        peers.check(["torch"], [name])
    with pytest.raises(InputError, match="unknown model for peer torch 'mobilenet_v9'"):
        peers.check(["torch"], ["mobilenet_v9"])
    there.add("torchvision")
    peers.check(["torch"], [name])
