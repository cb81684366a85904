"""Transfer learning: which parameters train, from which epoch on, and how fast.

Parameters go by their dotted names, as `stages.0.1.conv2.kernel`. Those that start to train in the
same epoch share one optimiser state, made when they start: so Adam's correction of young averages
holds for them too, and what is still frozen has no state at all.
"""

import fnmatch
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxres.config import Config, OptimConfig, TransferConfig
from jaxres.models.pure import Net, flatten, unflatten
from jaxres.runtime.errors import InputError
from jaxres.training import optim

PyTree = Any
Starts = Mapping[str, int]  # the epoch from which each parameter trains
NEVER = 2**31


def layers(net: Net, image_size: int) -> list[list[str]]:
    """Names of the parameters by layer, in the order in which an image meets them.

    A layer is a convolution or a dense layer with what follows it up to the next one: its bias and
    norms. The order is that of first use in the traced program.
    """
    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    flat = flatten(net.params)
    program = jax.make_jaxpr(
        lambda flat, stats, image: net.apply(unflatten(flat), stats, image, train=False)
    )(flat, net.stats, image)
    names = dict(zip(program.jaxpr.invars, sorted(flat), strict=False))
    used = [
        names.pop(variable)
        for equation in program.eqns
        for variable in equation.invars
        if not hasattr(variable, "val") and variable in names
    ]
    found: list[list[str]] = []
    for name in used:
        if name.endswith("kernel") or not found:
            found.append([])
        found[-1].append(name)
    return found


def start_epochs(config: TransferConfig, net: Net, image_size: int) -> Starts:
    """The epoch from which each parameter trains; `NEVER` for those that stay frozen.

    Raises:
        InputError: a pattern matches nothing, there are fewer layers, or nothing trains.
    """
    flat = flatten(net.params)
    frozen: set[str] = set()
    if config.freeze_layers:
        in_order = layers(net, image_size)
        if config.freeze_layers >= len(in_order):
            raise InputError(
                f"transfer.freeze_layers is {config.freeze_layers}; allowed for this network: "
                f"0 to {len(in_order) - 1}"
            )
        frozen.update(*in_order[: config.freeze_layers])
    for pattern in config.freeze:
        frozen.update(_matching(pattern, flat, "transfer.freeze"))
    starts = {name: NEVER if name in frozen else 0 for name in flat}
    for epoch, pattern in config.unfreezing():
        for name in _matching(pattern, frozen, "transfer.unfreeze"):
            starts[name] = min(epoch, starts[name])
    if min(starts.values()) > 0:
        raise InputError("transfer freezes every parameter; allowed: at least one that trains")
    return starts


def _matching(pattern: str, names: Collection[str], key: str) -> list[str]:
    matching = fnmatch.filter(names, pattern)
    if not matching:
        kind = "parameter" if key != "transfer.unfreeze" else "frozen parameter"
        some = ", ".join(sorted(names)[:3])
        raise InputError(f"{key} has '{pattern}', which matches no {kind} (there are {some}, ...)")
    return matching


def split(params: PyTree, names: Collection[str] | None) -> tuple[PyTree, PyTree]:
    """Nested dicts of the parameters that are named, and of the others; None names all."""
    if names is None:
        return params, {}
    flat = flatten(params)
    parts = ({}, {})
    for name, leaf in flat.items():
        parts[name not in names][name] = leaf
    taken, rest = (unflatten(part) for part in parts)
    return taken, rest


def join(*parts: PyTree) -> PyTree:
    """The parameters that `split` has parted."""
    flat = {}
    for part in parts:
        flat |= flatten(part)
    return unflatten(flat)


def frozen_norms(stats: PyTree, names: Collection[str] | None) -> frozenset[str]:
    """Dotted paths of the batch norms whose scale is not among the parameters that train."""
    if names is None:
        return frozenset()
    paths = {name.rpartition(".")[0] for name in flatten(stats)}
    return frozenset(path for path in paths if f"{path}.scale" not in names)


class Phase(NamedTuple):
    """What trains from one unfreezing to the next."""

    epoch: int  # that began it
    trained: frozenset[str] | None  # None: all
    optimizer: optax.GradientTransformation


def phase(config: Config, starts: Starts, epoch: int, *, total_steps: int) -> Phase:
    """The phase to which an epoch belongs.

    With gradual unfreezing the optimiser's state is a dict by the epoch (as text) in which
    parameters started. `optim.at_step` gives all of them the rate of the run's step.

    Raises:
        InputError: no optimiser has this name, or a pattern of `transfer.rates` matches nothing.
    """
    groups = {
        str(start): frozenset(name for name in starts if starts[name] == start)
        for start in sorted(set(starts.values()))
        if start <= epoch
    }
    names = frozenset().union(*groups.values())
    factors = _factors(config.transfer, starts)
    if config.transfer.unfreeze:
        transforms = {group: optim.unclipped(config.optim, total_steps) for group in groups}
        optimizer = _grouped(config.optim, groups, transforms)
    else:
        optimizer = optim.create(config.optim, total_steps)
    if factors:
        optimizer = _then_scaled(optimizer, factors)
    trained = None if len(names) == len(starts) else names
    return Phase(max(map(int, groups)), trained, optimizer)


def first_phase(config: Config, net: Net, total_steps: int) -> Phase:
    """What trains at the start of a run.

    Raises:
        InputError: as `start_epochs` and `phase`.
    """
    starts = start_epochs(config.transfer, net, config.data.image_size)
    return phase(config, starts, 0, total_steps=total_steps)


def grown(opt_state: PyTree, fresh: PyTree) -> PyTree:
    """The state of an optimiser that has got new groups: `fresh` where `opt_state` has none."""
    return {**fresh, **opt_state}


def describe(params: PyTree, names: Collection[str] | None) -> str:
    """How many parameters train, of how many."""
    flat = flatten(params)
    sizes = {name: leaf.size for name, leaf in flat.items()}
    training = sum(sizes[name] for name in (sizes if names is None else names))
    return f"{training:,} of {sum(sizes.values()):,} parameters train"


def _grouped(
    config: OptimConfig,
    groups: Mapping[str, frozenset[str]],
    transforms: Mapping[str, optax.GradientTransformation],
) -> optax.GradientTransformation:
    """An optimiser for each group of parameters, after one clipping of all gradients.

    `optax.partition` does not serve: the state of each of its groups has a place for every
    parameter that trains, so it would not fit any more when the next group starts to train.
    """

    def init(params: PyTree) -> dict[str, PyTree]:
        return {group: transforms[group].init(split(params, groups[group])[0]) for group in groups}

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        updates = optim.clip(config, updates)
        done, new = [], {}
        for group, names in groups.items():
            mine, theirs = split(updates, names)[0], split(params, names)[0]
            moved, new[group] = transforms[group].update(mine, state[group], theirs)
            done.append(moved)
        return join(*done), new

    return optax.GradientTransformation(init, update)


def _factors(config: TransferConfig, starts: Starts) -> dict[str, float]:
    """The factor of each parameter whose learning rate has one: that of the first match."""
    factors: dict[str, float] = {}
    for pattern, factor in config.rate_factors():
        for name in _matching(pattern, starts, "transfer.rates"):
            factors.setdefault(name, factor)
    return factors


def _then_scaled(
    optimizer: optax.GradientTransformation, factors: Mapping[str, float]
) -> optax.GradientTransformation:
    """The optimiser, its updates times a factor each.

    Its state is that of the optimiser, as saved runs have it; `optax.masked` would wrap it.
    """

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        updates, state = optimizer.update(updates, state, params)
        flat = flatten(updates)
        scaled = {name: factors.get(name, 1.0) * leaf for name, leaf in flat.items()}
        return unflatten(scaled), state

    return optax.GradientTransformation(optimizer.init, update)
