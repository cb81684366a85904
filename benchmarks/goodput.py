"""How much of its time a run of many hosts trains, and how often it should write a checkpoint.

A simulation, not a measurement. Hosts fail at random, independently; one that fails ends the run,
which is started again from its last checkpoint that was written whole. Lost are the steps since,
the time until the others notice, the start, the reading of the checkpoint by all hosts at once,
the loop's wait for each checkpoint, and the wait for the slowest host in each step. The defaults
are what `checkpoint` and the tests of faults measured here, and Meta's failures on 2,048 hosts.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.timing import rows
from jaxres.runtime.errors import InputError
from jaxres.runtime.screen import say

DAY_S = 86_400.0
# Llama 3 (Grattafiori et al. 2024, section 3.3.4): 419 unexpected interruptions in 54 days of
# 16,384 GPUs, eight to a host.
HOST_DAYS_PER_FAILURE = 54 * 16_384 / 8 / 419
CAUSES = ("waiting for the slowest", "checkpoints", "work lost", "noticing", "starting", "reading")
COLUMNS = {
    "case": "case",
    "every s": "every_s",
    "goodput": "goodput",
    "min": "goodput_least",
    "max": "goodput_most",
    "failures a day": "failures_per_day",
    **{cause: f"lost.{cause}" for cause in CAUSES},
}


class Costs(NamedTuple):
    """Seconds that a run of so many hosts spends beside its steps, and between its failures."""

    failure_s: float  # mean time between failures of any host
    blocked_s: float  # of the loop, per checkpoint
    written_s: float  # until a checkpoint is whole
    notice_s: float
    start_s: float
    read_s: float
    slowest: float = 1.0  # a step of all over the step of one

    @property
    def down_s(self) -> float:
        """From a failure until the run trains again."""
        return self.notice_s + self.start_s + self.read_s


def main(argv: Sequence[str] | None = None) -> int:
    """Status 0; 2 for what cannot be asked for."""
    args = _parser().parse_args(argv)
    try:
        _check(args)
    except InputError as error:
        say(f"error: {error}")
        return 2
    made = []
    for hosts in args.hosts:
        costs = costs_of(args, hosts)
        tried = [_row(args, hosts, costs, every) for every in args.every or intervals(costs)]
        best = max(tried, key=lambda row: row["goodput"])
        best["best"] = True
        made += tried if args.every else [best]
    rows.show(f"{args.days:g} days, {args.runs} times", made, COLUMNS)
    for row in made:
        if row["best"]:
            print(
                f"{row['case']}: best every {row['every_s']:.0f} s of those tried; "
                f"by Young's rule {row['young_s']:.0f} s"
            )
    print("A simulation; the shares of time are of the whole run.")
    rows.write(made, args.json)
    return 0


def _parser() -> argparse.ArgumentParser:
    made = rows.parser("goodput", __doc__)
    add = made.add_argument
    add("--hosts", type=rows.numbers, default=[8, 64, 256, 1000], help="(8,64,256,1000)")
    add("--every", type=rows.numbers, help="seconds between checkpoints; default: finds the best")
    add("--days", type=float, default=30.0, help="length of the run (30)")
    add("--runs", type=rows.number, default=100, help="times it is simulated (100)")
    add("--seed", type=int, default=0)
    defaults = {
        "host-days-per-failure": (HOST_DAYS_PER_FAILURE, "mean life of one host (264)"),
        "blocked-s": (0.36, "the loop waits for a checkpoint (0.36, ResNet-50 with AdamW)"),
        "written-s": (1.4, "until a checkpoint is whole (1.4)"),
        "notice-s": (60.0, "until a lost host is noticed (60, train.peer_timeout_s)"),
        "start-s": (67.0, "to start again: 60 for a scheduler and another host, 6.7 for the run"),
        "restore-s": (0.8, "to read a checkpoint, by one host (0.8)"),
        "state-mb": (282.0, "of a checkpoint, which every host reads (282)"),
        "storage-gbs": (10.0, "of the storage that all hosts read from (10)"),
        "jitter": (0.02, "standard deviation of a host's step over its mean (0.02)"),
    }
    for name, (default, told) in defaults.items():
        add(f"--{name}", type=float, default=default, help=told)
    return made


def _check(args: argparse.Namespace) -> None:
    """Refuse numbers that no run has.

    Raises:
        InputError: naming the first.
    """
    above_0 = ("days", "host_days_per_failure", "storage_gbs")
    for name, value in vars(args).items():
        if isinstance(value, float):
            least = "above 0" if name in above_0 else "0 or more"
            if not math.isfinite(value) or value < 0 or (name in above_0 and value == 0):
                flag = f"--{name.replace('_', '-')}"
                raise InputError(f"{flag} is {value:g}; allowed: a number, {least}")
    if args.seed < 0:
        raise InputError(f"--seed is {args.seed}; allowed: 0 or more")


def costs_of(args: argparse.Namespace, hosts: int) -> Costs:
    """What a run of so many hosts costs."""
    return Costs(
        failure_s=DAY_S * args.host_days_per_failure / hosts,
        blocked_s=args.blocked_s,
        written_s=args.written_s,
        notice_s=args.notice_s,
        start_s=args.start_s,
        read_s=max(args.restore_s, hosts * args.state_mb / 1e3 / args.storage_gbs),
        slowest=slowest_of(hosts, args.jitter, args.seed),
    )


def slowest_of(hosts: int, jitter: float, seed: int) -> float:
    """The mean over steps of the slowest of so many hosts, each around 1 with a normal spread."""
    drawn = np.random.default_rng(seed).standard_normal((200, hosts)).max(1)
    return float(1 + jitter * drawn.mean())


def intervals(costs: Costs) -> list[int]:
    """Seconds between checkpoints worth trying: around Young's rule, a seventh apart."""
    return sorted({max(1, round(young_s(costs) * 1.15**power)) for power in range(-12, 13)})


def young_s(costs: Costs) -> float:
    """The best interval to first order (Young 1974)."""
    return max(1.0, math.sqrt(2 * costs.blocked_s * costs.failure_s))


def simulate(
    costs: Costs, every_s: float, length_s: float, rng: Any
) -> tuple[dict[str, float], int]:
    """Seconds lost by each of CAUSES in a run of `length_s`, and the number of its failures."""
    lost: dict[str, float] = dict.fromkeys(CAUSES, 0.0)
    now, failures = 0.0, 0
    period = every_s + costs.blocked_s
    while now < length_s:
        alive = min(rng.exponential(costs.failure_s), length_s - now)
        now += alive
        periods = int(alive // period)
        trained = periods * every_s + min(alive - periods * period, every_s)
        lost["checkpoints"] += alive - trained
        kept = trained
        if now < length_s:
            failures += 1
            # The last one may still be being written when a host fails.
            since = alive - periods * period + costs.blocked_s
            whole = periods if since >= costs.written_s else periods - 1
            kept = max(0, whole) * every_s
            lost["work lost"] += trained - kept
            now, failures = _start_again(costs, lost, now, length_s, failures, rng)
        lost["waiting for the slowest"] += kept * (1 - 1 / costs.slowest)
    return lost, failures


def _start_again(
    costs: Costs, lost: dict[str, float], now: float, length_s: float, failures: int, rng: Any
) -> tuple[float, int]:
    """From a failure until the run trains again or its time is over; a host may fail meanwhile."""
    parts = {"noticing": costs.notice_s, "starting": costs.start_s, "reading": costs.read_s}
    while True:
        alive = rng.exponential(costs.failure_s)
        left = min(alive, costs.down_s, length_s - now)
        now += left
        for cause, seconds in parts.items():
            spent = min(seconds, left)
            lost[cause] += spent
            left -= spent
        if alive >= costs.down_s or now >= length_s:
            return now, failures
        failures += 1


def _row(args: argparse.Namespace, hosts: int, costs: Costs, every_s: float) -> dict[str, Any]:
    length_s = args.days * DAY_S
    rng = np.random.default_rng(args.seed)
    found = [simulate(costs, every_s, length_s, rng) for _ in range(args.runs)]
    goodputs = [1 - sum(lost.values()) / length_s for lost, _ in found]
    return rows.row(
        "goodput",
        f"{hosts:,} hosts",
        hosts=hosts,
        every_s=every_s,
        days=args.days,
        runs=args.runs,
        seed=args.seed,
        costs=costs._asdict(),
        young_s=young_s(costs),
        goodput=float(np.mean(goodputs)),
        goodput_least=min(goodputs),
        goodput_most=max(goodputs),
        failures_per_day=float(np.mean([count for _, count in found])) / args.days,
        lost={
            cause: float(np.mean([lost[cause] for lost, _ in found])) / length_s for cause in CAUSES
        },
        best=False,
    )


if __name__ == "__main__":
    sys.exit(main())
