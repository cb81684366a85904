"""The one place that knows how NNX splits a module: models as plain dicts and a pure function."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
from flax import nnx, traverse_util
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from jaxres.models import registry
from jaxres.models.blocks import BatchNorm
from jaxres.models.network import Tap
from jaxres.models.options import Options


class Net(NamedTuple):
    """A model without objects: what is trained, what is tracked, and the function of both.

    `params` and `stats` (running mean and variance of batch norm) are nested dicts of float32
    arrays with string keys. `apply(params, stats, images, *, train, key=None, frozen_norms=(),
    tap=None)` returns (logits, stats): with `train` the batch normalises itself and the returned
    statistics have moved, but for the batch norms at the dotted paths `frozen_norms`; without, they
    are those given. `key` is needed only for training with dropout.

    With `tap` (for `train` false), what each layer of the body gives passes through `tap(name,
    maps)`, which returns the maps to continue with: in the order of the computation, under the
    names of `Network.tapped`, and at the end the maps that the head reads as `features`.
    """

    params: PyTree
    stats: PyTree
    apply: Callable[..., tuple[Array, PyTree]]


def create_net(name: str, *, key: PRNGKeyArray, **options: Any) -> Net:
    """A model with fresh parameters, drawn without compiling; `options` are those of `Options`.

    Raises:
        InputError: no model has this name, or the model does not take an option's value.
    """
    asked = Options(**options)
    graph, params, stats = _split(registry.create(name, asked, rngs=nnx.Rngs(params=key)))
    return Net(params, stats, _apply_of(graph, asked))


def abstract_net(name: str, **options: Any) -> Net:
    """A model whose parameters and statistics are shapes and dtypes only: nothing is computed.

    Raises:
        InputError: no model has this name, or the model does not take an option's value.
    """
    asked = Options(**options)
    model = nnx.eval_shape(lambda: registry.create(name, asked, rngs=_AnyKey()))
    graph, params, stats = _split(model)
    return Net(params, stats, _apply_of(graph, asked))


class _AnyKey(nnx.Rngs):
    """One key for all, where nothing is drawn: the counter of `nnx.Rngs`, traced, takes longest."""

    def __init__(self) -> None:
        super().__init__()
        self._key = jax.random.key(0)

    def params(self) -> PRNGKeyArray:
        """The key."""
        return self._key


def flatten(tree: PyTree) -> dict[str, Any]:
    """The leaves of nested dicts by their dotted names, as `stages.0.1.conv2.kernel`."""
    leaves: dict[str, Any] = traverse_util.flatten_dict(tree, sep=".")
    return leaves


def unflatten(leaves: Mapping[str, Any]) -> PyTree:
    """The nested dicts that `flatten` took apart."""
    return traverse_util.unflatten_dict(leaves, sep=".")


def _split(model: nnx.Module) -> tuple[nnx.GraphDef, PyTree, PyTree]:
    graph, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return graph, _plain(params), _plain(stats)


def _apply_of(graph: nnx.GraphDef, options: Options) -> Callable[..., tuple[Array, PyTree]]:
    def apply(
        params: PyTree,
        stats: PyTree,
        images: Float[Array, "n h w c"],
        *,
        train: bool,
        key: PRNGKeyArray | None = None,
        frozen_norms: Collection[str] = (),
        tap: Tap | None = None,
    ) -> tuple[Float[Array, "n classes"], PyTree]:
        model = nnx.merge(graph, _state(params), _state(stats))
        for path, module in nnx.iter_modules(model) if train else ():
            if isinstance(module, BatchNorm):
                module.frozen = ".".join(map(str, path)) in frozen_norms
                module.fold_rule = options.fold_norm
        model.tap = tap
        logits = model(images, train=train, key=key)
        expected = (images.shape[0], options.classes)
        if logits.shape != expected:
            raise TypeError(
                f"{type(model).__name__} gives logits of shape {logits.shape}, not {expected}"
            )
        return logits, _plain(nnx.state(model, nnx.BatchStat)) if train else stats

    return apply


def _plain(state: nnx.State) -> PyTree:
    """Nested dicts of arrays; the numbers of list entries become strings, as checkpoints want."""

    def strings(node: Any) -> Any:
        if isinstance(node, Mapping):
            return {str(name): strings(child) for name, child in node.items()}
        return node

    return strings(nnx.to_pure_dict(state))


def _state(tree: PyTree) -> nnx.State:
    return nnx.State(nnx.restore_int_paths(tree))
