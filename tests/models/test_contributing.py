"""The example network of CONTRIBUTING.md."""

import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from jaxres.explain.layers import layer_shapes
from jaxres.models import registry
from jaxres.models.blocks import ConvNorm
from jaxres.models.network import Head, Network
from jaxres.models.options import Options
from jaxres.models.pure import create_net

TEXT = pathlib.Path(__file__).parents[2] / "CONTRIBUTING.md"


def test_it_is_a_network_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", TEXT.read_text(), re.DOTALL)
    names: dict[str, Any] = {each.__name__: each for each in (Network, Head, Options, ConvNorm)}
    exec(code, names | {"nnx": nnx}, names)
    monkeypatch.setitem(registry._MODELS, "small_net", names["MODELS"]["small_net"])
    net = create_net("small_net", key=jax.random.key(0), classes=10, image_size=32)
    logits, _ = net.apply(net.params, net.stats, jnp.ones((2, 32, 32, 3)), train=False)
    assert logits.shape == (2, 10)
    assert [*layer_shapes(net, 32)] == ["stem", "features"]
