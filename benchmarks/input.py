"""The input pipeline alone: plans and images per second, by themselves and against peers.

Every figure is of the batches that training takes (`train_batches`: Grain, labels and all), in
windows of fixed length. The figures per core restrict the whole process to one core. Peers make the
same images, in turn with ours.
"""

import argparse
import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.hardware import cores
from benchmarks.timing import measure, rows, streams
from jaxres.config import Config
from jaxres.config import recipe as recipes
from jaxres.config.recipe import split_settings
from jaxres.data.compose.cropped import Cropped
from jaxres.data.composed import ComposedDataset, open_split
from jaxres.distributed import strategy
from jaxres.distributed.mesh import check_batch, make_mesh
from jaxres.runtime.errors import InputError, find
from jaxres.runtime.memory import keep_freed_memory
from jaxres.runtime.screen import quiet_libraries, say

QUICKSTART = Path(__file__).parents[1] / "configs" / "quickstart.yaml"  # needs nothing prepared
MIN_PAIRS = 7


class Peer(NamedTuple):
    """Someone else's pipeline: what it is called and where it is written down."""

    title: str
    package: str
    module: str


PEERS = {
    "torch": Peer("torch DataLoader", "torch", "benchmarks.peers.torch_input"),
    "torch_uint8": Peer("torch DataLoader, uint8", "torch", "benchmarks.peers.torch_uint8_input"),
    "tf": Peer("tf.data", "tensorflow", "benchmarks.peers.tf_input"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, write the rows; 2 for a wrong command line, recipe or dataset."""
    own, flags = split_settings(sys.argv[1:] if argv is None else argv)
    args = _parser().parse_args(own)
    if args.batch_size is not None:
        flags.append(f"--data.batch-size={args.batch_size}")
    quiet_libraries()
    keep_freed_memory()  # as a run with the host renderer does; peers in this process gain too
    try:
        peers = {name: _peer(name) for name in args.peer}
        config = recipes.load(args.recipe, flags, prog="python -m benchmarks.input")
        dataset = open_split(config, "train")
        _require_comparable(config, dataset, peers)
        made = measured(config, dataset, peers, args)
    except InputError as error:
        say(f"error: {error}")
        return 2
    rows.write(made, args.json)
    rows.show(
        f"Input pipeline: {made[0]['data']}, batches of {config.data.batch_size}",
        made,
        {
            "case": "case",
            "unit": "unit",
            "cores": "cores",
            "per s": "images_per_s",
            "min": "images_per_s_spread.min",
            "max": "images_per_s_spread.max",
            "per s and core": "images_per_s_per_core",
            "peer": "peer.name",
            "its per s": "peer.images_per_s",
            "ratio": "ratio.median",
            "ratio, min": "ratio.min",
        },
    )
    return 0


def _require_comparable(config: Config, dataset: ComposedDataset, peers: Mapping[str, Any]) -> None:
    """Refuse peers that do not make such images."""
    if not peers:
        return
    crops = isinstance(dataset.compose, Cropped)
    if config.data.composition != "scale_blend" and not crops:
        raise InputError(
            f"data.composition is {config.data.composition}; allowed with --peer: scale_blend, or "
            "plain with augment.crop_area"
        )
    if not crops and "torch_uint8" in peers:
        raise InputError("--peer torch_uint8 is for recipes with augment.crop_area")
    by_torch = [name for name in peers if PEERS[name].package == "torch"]
    if crops and by_torch and importlib.util.find_spec("torchvision") is None:
        raise InputError(
            f"--peer {by_torch[0]} needs torchvision to cut photographs, which is not installed "
            "here: pip install --no-deps torchvision"
        )


def measured(
    config: Config, dataset: ComposedDataset, peers: Mapping[str, Any], args: argparse.Namespace
) -> list[dict[str, Any]]:
    """The rows: plans, host images in every way asked for, the feed, device rendering."""
    parallel = strategy.create(config.train, make_mesh(config.train.devices))
    check_batch(config.data.batch_size, parallel.mesh.size, config.optim.accumulate_steps)
    run = functools.partial(streams.rates, seconds=args.seconds, repeats=args.repeats)
    common = {
        "recipe": str(args.recipe),
        "data": streams.describe(config, dataset),
        "image_size": config.data.image_size,
        "repeats": args.repeats,
        "window_s": args.seconds,
    }
    made = []

    def note(case: str, rates: Mapping[str, list[float]], used: int | None, **more: Any) -> None:
        known = {"batch_size": config.data.batch_size, **common, **more}
        made.extend(_rows(case, rates, peers, used, known))

    crops = isinstance(dataset.compose, Cropped)  # on the host alone
    plain = _replaced(config, render="device", workers=0)
    with cores.one() as used, streams.ours(dataset, plain) as take:
        rates = run({"": take})
    note("plans", rates, used, unit="plans")

    for workers in args.workers:
        host = _replaced(config, render="host", workers=workers)
        with contextlib.ExitStack() as stack:
            used = cores.count() if workers else stack.enter_context(cores.one())
            takes = {"": stack.enter_context(streams.ours(dataset, host))}
            for name, peer in peers.items():
                batches = peer.batches(dataset, host.data.batch_size, workers=workers)
                stack.callback(batches.close)
                takes[name] = functools.partial(streams.take_theirs, batches)
            rates = run(takes)
        case = f"host pictures, {workers} workers" if workers else "host pictures, in process"
        note(case, rates, used, unit="pictures", workers=workers)

    if crops:
        return made
    with streams.fed(dataset, plain, parallel) as take:
        rates = run({"": take})
    note("feed", rates, cores.count(), unit="plans")

    def rendered(batch_size: int) -> dict[str, list[float]]:
        return run({"": streams.rendering(dataset, plain, parallel.mesh, batch_size)})

    rates, batch_size = measure.with_smaller_batch(rendered, config.data.batch_size)
    note("device rendering", rates, cores.count(), unit="pictures", batch_size=batch_size)
    return made


def _rows(
    case: str,
    rates: Mapping[str, list[float]],
    peers: Mapping[str, Any],
    used: int | None,
    known: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """A row, or one for each peer that ran in turn with ours."""
    ours = rates[""]
    rate = statistics.median(ours)
    values = {
        **known,
        "images_per_s": rate,
        "images_per_s_spread": {"min": min(ours), "max": max(ours)},
        "images_per_s_per_core": rate / used if used else None,
        "cores": used,
    }
    if used is None:
        values["cores_reason"] = cores.WHY_NOT
    made = []
    for name in [key for key in rates if key] or [None]:
        if name is not None:
            values["peer"] = rows.peer(
                PEERS[name].title, peers[name].VERSION, statistics.median(rates[name])
            )
            # A ratio of rates: that of the seconds an image takes, the other way round.
            values["ratio"] = measure.ratio(
                [1 / each for each in ours], [1 / each for each in rates[name]]
            )
        made.append(rows.row("input", case, **values))
    return made


def _replaced(config: Config, *, render: Any, workers: int) -> Config:
    data = dataclasses.replace(config.data, render=render, workers=workers)
    return dataclasses.replace(config, data=data)


def _peer(name: str) -> Any:
    peer = find("peer in --peer", name, PEERS)
    if importlib.util.find_spec(peer.package) is None:
        raise InputError(f"--peer {name} needs {peer.package}, which is not installed here")
    return importlib.import_module(peer.module)


def _parser() -> argparse.ArgumentParser:
    parser = rows.parser("input", __doc__)
    parser.epilog = "The recipe's keys can be overridden: --data.canvas 64"
    parser.add_argument("--recipe", type=rows.local_path, default=QUICKSTART, metavar="FILE")
    parser.add_argument(
        "--peer", type=rows.names, default=[], help="torch, torch_uint8, tf, several with commas"
    )
    parser.add_argument(
        "--workers", type=_worker_counts, default=[0], help="worker processes, as 0,2 (0: none)"
    )
    parser.add_argument("--batch-size", metavar="N", help="default: the recipe's")
    parser.add_argument("--repeats", type=_repeats, default=9, help="windows (7 or more)")
    parser.add_argument("--seconds", type=seconds, default=0.7, help="length of a window")
    return parser


def _worker_counts(text: str) -> list[int]:
    words = rows.names(text)
    if not words or not all(word.isdecimal() for word in words):
        raise argparse.ArgumentTypeError(f"'{text}'; allowed: whole numbers with commas, as 0,2")
    return [int(word) for word in words]


def seconds(text: str) -> float:
    """A length of time above 0, for argparse."""
    return rows.above_0(text, "seconds")


def _repeats(text: str) -> int:
    if not text.isdecimal() or int(text) < MIN_PAIRS:
        raise argparse.ArgumentTypeError(f"'{text}'; allowed: {MIN_PAIRS} or more")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
