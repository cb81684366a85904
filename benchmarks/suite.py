"""Run the list of benchmarks that makes the committed rows of a kind of device, one by one.

Each is a process of its own that writes OUT/NAME.json; what is there already is left as it is. The
list goes on after a failure and names the failures at its end. Nothing is fetched: data sets that
are not prepared give way to the embedded ones, peers that are not installed are left out, and both
are said.
"""

import argparse
import dataclasses
import functools
import importlib.util
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import peers, rows
from jaxres.data import backgrounds, sources
from jaxres.data.paths import data_dir
from jaxres.errors import InputError, unknown_name
from jaxres.screen import say

MANY = 8  # devices that a dry run takes to be there
DEVICES = ("cpu", "gpu", "tpu")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A benchmark: its name, the program with its arguments, and when it is run.

    `{out}` in the arguments stands for the folder of results, `{name}` for the entry's name,
    `{data}` for flags that take the embedded data in place of MNIST over photographs where those
    are not prepared, `{counts}` for numbers of devices up to those here.
    """

    name: str
    words: str
    quick: str | None = None  # the words with --quick; "" leaves it out
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    devices: int = 1  # only with so many


S1 = "configs/scaled_mnist/resnet50_200pct.yaml {data}"
MINI = "configs/scaled_mnist/mini_200pct.yaml {data}"
SPEED = "configs/mnist_speed.yaml"


def step(model: str, batch: str = "256", more: str = "") -> str:
    """The training step of a model at 224 px in bfloat16."""
    return f"step --model {model} --image-size 224 --batch-size {batch} --dtype bfloat16 {more}"


def conv(model: str, image_size: int = 224, more: str = "") -> str:
    """The convolutions of a model, with a plot named as the entry."""
    return f"conv --model {model} --image-size {image_size} --plot {{out}}/{{name}}.png {more}"


def xla(flag: str) -> dict[str, str]:
    """The environment with one flag of XLA."""
    return {"XLA_FLAGS": flag}


TORCH = "--peer torch,torch_compiled"
BATCHES, HALF = "64,128,256,512,1024", "128,512"
LARGE = "--batch-size 256 --dtype bfloat16"
V5E = "--topology v5e:2x2"
GPUS = "--topology h100,h200,a100,l4 --data.batch-size 256"
RESNET50 = step("resnet50")  # what the variants after it differ from
SCALING = "scaling --model resnet50 --image-size 224 --batch-size 256 --dtype bfloat16"

LISTS = {
    "cpu": [
        Entry("step_resnet18_64", "step --case resnet18:64:64 --peer torch,flax"),
        Entry("step_resnet50_64", "step --case resnet50:64:32 --peer torch,flax"),
        Entry("step_resnet18_224", "step --case resnet18:224:16 --peer torch,flax"),
        Entry("step_resnet50_224", "step --case resnet50:224:16 --peer torch,flax"),
        Entry("step_mobilenet_v2_128", "step --case mobilenet_v2:128:32 --peer torch", quick=""),
        Entry(
            "step_resnet18_64_peers",
            "step --case resnet18:64:64 --peer torch_compiled,keras",
            quick="",
        ),
        Entry("step_norm", "step --case resnet50:64:32,resnet18:224:16 --peer derived_norm"),
        Entry("conv_resnet18", conv("resnet18"), quick=""),
        Entry("conv_resnet50", conv("resnet50")),
        Entry("conv_resnet50_64", conv("resnet50", 64, "--batch-size 32 --lowering all"), quick=""),
        Entry("input", f"input --recipe {S1} --peer torch --batch-size 128"),
        Entry("train_mini", f"train {MINI}", quick=f"train {MINI} --seconds 30"),
        Entry("mnist_speed", f"train {SPEED} --to-accuracy 0.99 --seeds 5"),
        Entry("checkpoint", "checkpoint"),
        Entry("scaling", "scaling --batch-size 16 --repeats 5", env={"JAX_NUM_CPU_DEVICES": "8"}),
        Entry("compile", "compile", quick=""),
        Entry("aot", f"aot {S1} --topology v5e:2x2,v5e:4x4,v5p:2x2x1", quick=f"aot {S1} {V5E}"),
        # libtpu 0.0.42.1, of jax 0.10.2, overflows its stack on v6e; 0.0.43.2 does not.
        Entry("aot_v6e", f"aot {S1} --topology v6e:2x2", quick=""),
        Entry("aot_sync_batch_norm", f"aot {S1} --model.sync-batch-norm true {V5E}", quick=""),
        Entry("aot_gpu", f"aot {S1} {GPUS} --against unfolded", quick=f"aot {S1} --topology h100"),
    ],
    "gpu": [
        Entry("step_resnet50", step("resnet50", more=TORCH)),
        Entry("step_resnet18", step("resnet18", more=TORCH)),
        Entry("step_resnet101", step("resnet101", more=TORCH), quick=step("resnet101")),
        Entry("step_wide_resnet50_2", step("wide_resnet50_2", more=TORCH), quick=""),
        Entry("step_vgg16", step("vgg16", more=TORCH)),
        Entry("step_resnet50_batches", step("resnet50", BATCHES), quick=step("resnet50", HALF)),
        Entry("step_resnet50_profile", step("resnet50", more="--profile {out}/profile_resnet50")),
        Entry("conv_resnet50", conv("resnet50", more=LARGE)),
        Entry("train_s1", f"train {S1} --data.batch-size 256"),
        Entry("ab_unfolded", f"{RESNET50} --peer unfolded"),
        Entry("ab_derived_norm", f"{RESNET50} --peer derived_norm"),
        Entry("ab_no_excess_precision", f"{RESNET50} --peer no_excess_precision"),
        Entry("ab_baseline", RESNET50),
        Entry("ab_steps_per_call_8", f"{RESNET50} --steps-per-call 8"),
        Entry("ab_space_to_depth", f"{RESNET50} --lowering space_to_depth"),
        Entry("ab_four_channels", f"{RESNET50} --lowering four_channels"),
        Entry("ab_no_command_buffers", RESNET50, env=xla("--xla_gpu_enable_command_buffer=")),
        Entry("ab_no_triton_gemm", RESNET50, env=xla("--xla_gpu_enable_triton_gemm=false")),
        Entry("ab_optimization_o1", RESNET50, env={"JAX_OPTIMIZATION_LEVEL": "O1"}),
        Entry("checkpoint", "checkpoint"),
        Entry("input", f"input --recipe {S1} --workers 0,4 --peer torch"),
        Entry("scaling", f"{SCALING} --devices {{counts}}", devices=2),
        Entry("compile", "compile --model resnet50 --image-size 224 --batch-size 256", quick=""),
    ],
    "tpu": [
        Entry("step_resnet50_batches", step("resnet50", BATCHES), quick=step("resnet50", HALF)),
        Entry("step_resnet18", step("resnet18")),
        Entry("step_vgg16", step("vgg16")),
        Entry("step_resnet50_profile", step("resnet50", more="--profile {out}/profile_resnet50")),
        Entry("conv_resnet50", conv("resnet50", more=LARGE)),
        Entry("train_s1", f"train {S1} --data.batch-size 256"),
        Entry("ab_baseline", RESNET50),
        Entry("ab_steps_per_call_8", f"{RESNET50} --steps-per-call 8"),
        Entry("ab_space_to_depth", f"{RESNET50} --lowering space_to_depth"),
        Entry("ab_four_channels", f"{RESNET50} --lowering four_channels"),
        Entry("checkpoint", "checkpoint"),
        Entry("input", f"input --recipe {S1} --peer torch"),
        Entry("scaling", f"{SCALING} --devices {{counts}}", devices=2),
    ],
}


def main(argv: Sequence[str] | None = None) -> int:
    """Status 0 if all went well, 1 if one failed, 2 for a device or a name that is not there."""
    args = _parser().parse_args(argv)
    out = args.out or Path("results") / args.device
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
        if reason := left_out(entry, final, count, overwrite=args.overwrite):
            say(f"{head}: {reason}")
            continue
        words = arguments(entry, out, embedded, count, quick=args.quick)
        say(f"{head}: {shown(entry, [*words, '--json', str(final)])}")
        if args.dry_run:
            continue
        began = time.perf_counter()
        status = run(entry, words, final)
        say(
            f"{head}: {'done' if status == 0 else f'failed ({status})'} after "
            f"{time.perf_counter() - began:.0f} s"
        )
        if status:
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
    add("--dry-run", action="store_true", help="print the commands")
    add("--overwrite", action="store_true", help="run again what has its file already")
    add("--out", type=Path, metavar="FOLDER", help="default: results/DEVICE")
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

    Asked in a process of its own, which gives the device back: JAX takes most of a GPU's memory.

    Raises:
        InputError: JAX's default devices are of another kind.
    """
    ask = "import jax; print(jax.default_backend(), jax.device_count())"
    asked = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False)
    backend, count = (asked.stdout.split() or ["none", "0"])[-2:]
    if asked.returncode or backend != device:
        detail = "".join(asked.stderr.splitlines()[-1:]) if asked.returncode else ""
        raise InputError(
            f"--device is {device}; allowed here: {backend}, the kind JAX finds "
            f"(JAX_PLATFORMS chooses another that is there) {detail}".rstrip()
        )
    return int(count)


def embedded_flags() -> list[str]:
    """Flags in place of MNIST over photographs, if one of them is not prepared."""
    folder = data_dir("")
    listed = [*sources.describe(folder), *backgrounds.describe(folder)]
    ready = {row.name: row.ready for row in listed}
    if ready["mnist"] and ready["photos"]:
        return []
    say("mnist and photos are not both prepared: scikit-learn's digits and photographs instead")
    return ["--data.dataset", "digits", "--data.backgrounds", "embedded"]


def left_out(entry: Entry, final: Path, count: int, *, overwrite: bool) -> str:
    """Why an entry is not run, or nothing."""
    if final.exists() and not overwrite:
        return f"{final} is there (--overwrite makes it again)"
    if count < entry.devices:
        return f"left out, needs {entry.devices} devices"
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
    package = peers.PEERS[peer].package if peer in peers.PEERS else peer
    found = importlib.util.find_spec(package) is not None
    if not found:
        say(f"{package} is not installed: peer {peer} left out")
    return found


def shown(entry: Entry, words: Sequence[str]) -> str:
    """The command line that a reader can give again."""
    env = [f"{key}={shlex.quote(value)}" for key, value in entry.env.items()]
    return " ".join([*env, "python -m", shlex.join([f"benchmarks.{words[0]}", *words[1:]])])


def run(entry: Entry, words: Sequence[str], final: Path) -> int:
    """Run one; its rows stay in NAME.partial.json unless it ends well."""
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = final.with_suffix(".partial.json")
    partial.unlink(missing_ok=True)
    program = [sys.executable, "-m", f"benchmarks.{words[0]}", *words[1:], "--json", str(partial)]
    status = subprocess.run(program, env=os.environ | dict(entry.env), check=False).returncode
    if status == 0:
        made = json.loads(partial.read_text())["rows"]
        command = shown(entry, [*words, "--json", str(final)])
        rows.write([row | {"command": command, "env": dict(entry.env)} for row in made], final)
        partial.unlink()
    return status


if __name__ == "__main__":
    sys.exit(main())
