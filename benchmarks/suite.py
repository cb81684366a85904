"""Run the list of benchmarks that makes the committed rows of a kind of device, one by one.

Each is a process of its own that writes OUT/NAME.json; what is there already is left as it is. The
list goes on after a failure and names the failures at its end. With --minutes it runs what is
missing and fits in the time; a GPU's list is in order of value, so that is what is worth most.
Nothing is fetched: datasets that are not prepared give way to the embedded ones, peers that are
not installed are left out, and both are said.
"""

import argparse
import contextlib
import functools
import importlib.util
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import peers
from benchmarks.lists import LISTS, Entry
from benchmarks.peers.variants import VARIANTS
from benchmarks.timing import apart, rows
from jaxres.data.backgrounds import photographs
from jaxres.data.datasets import registry
from jaxres.data.datasets.paths import data_dir
from jaxres.runtime.errors import InputError, unknown_name
from jaxres.runtime.screen import say

MANY = 8  # devices that a dry run takes to be there
DEVICES = ("cpu", "gpu", "tpu")


def main(argv: Sequence[str] | None = None) -> int:
    """Status 0 if all went well, 1 if one failed, 2 for a device or a name that is not there."""
    args = _parser().parse_args(argv)
    out = args.out or Path("results") / args.device
    end = math.inf if args.minutes is None else time.monotonic() + 60 * args.minutes
    try:
        chosen = [entry for entry in LISTS[args.device] if not args.quick or entry.quick != ""]
        chosen = only(chosen, args.only)
        count = MANY if args.dry_run else device_count(args.device)
        embedded = embedded_flags()
    except InputError as error:
        say(f"error: {error}")
        return 2
    failed = []
    for number, entry in enumerate(chosen, 1):
        final = out / f"{entry.name}.json"
        head = f"[{number}/{len(chosen)}] {entry.name}"
        left_s = end - time.monotonic()
        if reason := left_out(entry, final, count, left_s, overwrite=args.overwrite):
            say(f"{head}: {reason}")
            continue
        words = arguments(entry, out, embedded, count, quick=args.quick)
        say(f"{head}: {shown(entry, [*words, '--json', str(final)])}")
        if args.dry_run:
            end -= entry.seconds
            continue
        began = time.monotonic()
        status = run(entry, words, final, left_s)
        say(f"{head}: {ended(status)} after {time.monotonic() - began:.0f} s")
        if status != 0:
            failed.append(entry.name)
    if failed:
        say(f"error: failed: {', '.join(failed)}")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.suite", description=__doc__, allow_abbrev=False
    )
    add = made.add_argument
    add("--device", choices=DEVICES, required=True, help="which list; the device has to be here")
    add("--only", type=rows.names, metavar="NAME,...", help="these of the list")
    add("--quick", action="store_true", help="half the sweeps")
    add(
        "--minutes",
        type=rows.above_0,
        metavar="N",
        help="what fits in so many minutes: none is begun that may take longer than is left",
    )
    add("--dry-run", action="store_true", help="print the commands")
    add("--overwrite", action="store_true", help="run again what has its file already")
    add("--out", type=rows.local_path, metavar="FOLDER", help="default: results/DEVICE")
    return made


def only(entries: Sequence[Entry], names: Sequence[str] | None) -> list[Entry]:
    """The entries of these names, or all.

    Raises:
        InputError: a name is not in the list.
    """
    if names is None:
        return list(entries)
    known = [entry.name for entry in entries]
    for name in names:
        if name not in known:
            raise unknown_name("benchmark in --only", name, known)
    return [entry for entry in entries if entry.name in names]


def device_count(device: str) -> int:
    """How many devices of the asked kind there are.

    Raises:
        InputError: JAX's default devices are of another kind.
    """
    try:
        backend, count = apart.devices()
    except RuntimeError as error:  # JAX_PLATFORMS names what is not here
        raise InputError(f"--device is {device}, but JAX finds no device: {error}") from None
    if backend != device:
        raise InputError(
            f"--device is {device}; allowed here: {backend}, the kind JAX finds "
            "(JAX_PLATFORMS chooses another that is there)"
        )
    return count


def embedded_flags() -> list[str]:
    """Flags in place of MNIST over photographs, if one of them is not prepared."""
    folder = data_dir("")
    listed = [*registry.describe(folder), *photographs.describe(folder)]
    ready = {row.name: row.ready for row in listed}
    if ready["mnist"] and ready["photos"]:
        return []
    say("mnist and photos are not both prepared: scikit-learn's digits and photographs instead")
    return ["--data.dataset", "digits", "--data.backgrounds", "embedded"]


def left_out(entry: Entry, final: Path, count: int, left_s: float, *, overwrite: bool) -> str:
    """Why an entry is not run, or nothing."""
    if final.exists() and not overwrite:
        return f"{final} is there (--overwrite replaces it)"
    if count < entry.devices:
        return f"left out, needs {entry.devices} devices"
    if entry.seconds > left_s:
        return f"left out, {max(0.0, left_s):.0f} s left of the {entry.seconds} it may take"
    return ""


def arguments(
    entry: Entry, out: Path, embedded: Sequence[str], count: int, *, quick: bool
) -> list[str]:
    """The program and its arguments on `count` devices, but for --json."""
    words = entry.quick if quick and entry.quick is not None else entry.words
    counts = ",".join(str(2**power) for power in range(count.bit_length()))
    folder, flags = shlex.quote(str(out)), shlex.join(embedded)
    filled = words.format(out=folder, name=entry.name, data=flags, counts=counts)
    return without_missing_peers(shlex.split(filled))


def without_missing_peers(words: list[str]) -> list[str]:
    """The words with the peers of --peer that are installed; without --peer if none is."""
    if "--peer" not in words:
        return words
    at = words.index("--peer")
    here = [name for name in words[at + 1].split(",") if installed(name)]
    kept = ["--peer", ",".join(here)] if here else []
    return [*words[:at], *kept, *words[at + 2 :]]


@functools.cache
def installed(peer: str) -> bool:
    """Whether a peer's package (torch of torch_compiled) is there; if not, it is said once."""
    if peer in VARIANTS:  # our own step
        return True
    package = peers.PEERS[peer].package if peer in peers.PEERS else peer
    found = importlib.util.find_spec(package) is not None
    if not found:
        say(f"{package} is not installed: peer {peer} left out")
    return found


def shown(entry: Entry, words: Sequence[str]) -> str:
    """The command line that a reader can give again."""
    env = [f"{key}={shlex.quote(value)}" for key, value in entry.env.items()]
    return " ".join([*env, "python -m", shlex.join([f"benchmarks.{words[0]}", *words[1:]])])


def run(entry: Entry, words: Sequence[str], final: Path, limit_s: float = math.inf) -> int | None:
    """Run one; its rows stay in NAME.partial.json unless it ends well.

    Gives its status, or None if it was stopped after `limit_s` seconds.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = final.with_suffix(".partial.json")
    partial.unlink(missing_ok=True)
    program = [sys.executable, "-m", f"benchmarks.{words[0]}", *words[1:], "--json", str(partial)]
    status = run_whole(program, os.environ | dict(entry.env), limit_s)
    if status == 0:
        made = json.loads(partial.read_text())["rows"]
        command = shown(entry, [*words, "--json", str(final)])
        rows.write([row | {"command": command, "env": dict(entry.env)} for row in made], final)
        partial.unlink()
    return status


def run_whole(program: Sequence[str], env: Mapping[str, str], limit_s: float) -> int | None:
    """The status of a program, or None if it was stopped after `limit_s` seconds.

    When it ends, however it ends, what it started ends too: nothing may go on using the device.
    """
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    process = subprocess.Popen(program, env=env, start_new_session=True)
    try:
        return process.wait(None if math.isinf(limit_s) else limit_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        signal.signal(signal.SIGTERM, before)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ended(status: int | None) -> str:
    """How an entry ended, in words."""
    if status is None:
        return "stopped, out of time,"
    return "done" if status == 0 else f"failed ({status})"


if __name__ == "__main__":
    sys.exit(main())
