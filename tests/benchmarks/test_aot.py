import importlib.util
import json
import types
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import jax
import pytest

from benchmarks import aot
from benchmarks.aot import Asked
from benchmarks.compiled import figures, topology
from benchmarks.compiled.topology import Topology
from benchmarks.hardware.chips import CHIPS
from jaxres.distributed import strategy
from jaxres.distributed.mesh import make_mesh
from jaxres.ops import target
from jaxres.runtime.errors import InputError
from tests.data.conftest import write_photo

FULL = (
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
    "Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G.\n\nTotal hbm usage >= 20.75G"
)


@pytest.fixture
def recipe(tmp_path, tiny_flags):
    path = tmp_path / "small.yaml"
    path.write_text("model:\n  name: tiny\n")
    return [str(path), *tiny_flags]


@pytest.fixture
def in_this_process(monkeypatch):
    """Programs are compiled here, as another process does not know `tiny`."""
    config: Any = jax.config  # the values of its options are not among its declared attributes
    cached = config.jax_enable_compilation_cache
    monkeypatch.setattr(aot, "row_apart", aot.row)
    yield
    config.update("jax_enable_compilation_cache", cached)


@pytest.fixture
def on_cpu(in_this_process, monkeypatch):
    """Topologies of this machine's CPU devices in place of TPUs."""

    def describe(name):
        return Topology(name, CHIPS["v5e"], make_mesh(int(name)))

    monkeypatch.setattr(topology, "describe", describe)


def test_rows_hold_memory_messages_and_work(recipe, on_cpu, tmp_path, capsys):
    file = tmp_path / "rows.json"
    assert (
        aot.main([*recipe, "--data.batch-size", "30", "--topology", "4", "--json", str(file)]) == 0
    )
    printed = capsys.readouterr().out
    assert "tiny, rendered on the device from 320 images of 8x8 and 4 photos of 320x320" in printed
    assert "4: batch of 32, as 30 does not divide over 4 parts" in printed
    (row,) = json.loads(file.read_text())["rows"]
    assert (row["batch_size"], row["batch_per_device"], row["device_count"]) == (32, 8, 4)
    assert row["verdict"] == "fits"
    assert row["collectives"]["all-reduce"]["count"] == 1
    assert row["other_collectives"] == 0
    assert row["peak_memory_mib"] == pytest.approx(sum(row["memory_mib"].values()))
    # The resident photographs alone are 4 * 320 * 320 * 3 bytes.
    assert row["memory_mib"]["arguments"] > 1.17
    assert row["gflop_per_image"] == pytest.approx(row["gflop"] / 8)
    bound = max(row["gflop"] / 197, 1e3 * row["hbm_gb"] / 819)
    assert row["bound_ms"]["step"] == pytest.approx(bound)


def test_steps_are_traced_and_compiled_for_tpus(recipe, on_cpu, monkeypatch):
    compile_step, given = strategy.Jit.compile, []

    def compile_(parallel, step, steps_per_call):
        given.append((target.backend(), target.compiler_options()))

        def traced(*arguments):
            given.append((target.backend(), target.compiler_options()))
            return step(*arguments)

        return compile_step(parallel, traced, steps_per_call)

    monkeypatch.setattr(strategy.Jit, "compile", compile_)
    assert aot.main([*recipe, "--topology", "4"]) == 0
    assert given == [("tpu", {}), ("tpu", {})]


def test_what_does_not_fit_is_a_row_and_what_breaks_is_a_failure(
    recipe, on_cpu, monkeypatch, tmp_path, capsys
):
    messages = iter([FULL, "INTERNAL: the compiler\nbroke"])

    def compile_(**_):
        raise RuntimeError(next(messages))

    monkeypatch.setattr(topology, "lower", lambda *_: types.SimpleNamespace(compile=compile_))
    file = tmp_path / "rows.json"
    assert aot.main([*recipe, "--topology", "4", "--json", str(file)]) == 0
    (row,) = json.loads(file.read_text())["rows"]
    assert row["verdict"] == "does not fit"
    assert row["peak_memory_mib"] == 20.5 * 1024
    assert "does not fit" in capsys.readouterr().out
    assert aot.main([*recipe, "--topology", "4"]) == 1
    assert "error: 4: RuntimeError: INTERNAL: the compiler broke\n" in capsys.readouterr().err


@pytest.mark.slow
def test_a_compiler_that_dies_is_one_failure(recipe, on_cpu, monkeypatch, tmp_path, capsys):
    def die_on_the_first(config, work, asked):
        if asked.topology == "4":
            raise BrokenProcessPool("terminated abruptly")
        return aot.row(config, work, asked)

    monkeypatch.setattr(aot, "row_apart", die_on_the_first)
    file = tmp_path / "rows.json"
    assert aot.main([*recipe, "--topology", "4,2", "--json", str(file)]) == 1
    said = capsys.readouterr().err
    assert "error: 4: the compiler (libtpu " in said
    assert "died; another version may not\n" in said
    assert [row["topology"] for row in json.loads(file.read_text())["rows"]] == ["2"]


def test_a_refusal_for_temporaries_alone_is_understood():
    said = "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
    found = figures.refusal(said + "temporaries (33.69G) exceeds available HBM (15.75G).")
    assert found["peak_memory_mib"] == 33.69 * 1024
    assert "peak_memory_mib" not in figures.refusal("RESOURCE_EXHAUSTED: too much")


def test_a_step_above_the_chips_memory_does_not_fit():
    compiled: Any = types.SimpleNamespace(
        memory_analysis=lambda: types.SimpleNamespace(
            argument_size_in_bytes=9 * 2**30,
            output_size_in_bytes=3 * 2**30,
            alias_size_in_bytes=2 * 2**30,
            temp_size_in_bytes=6 * 2**30,
            generated_code_size_in_bytes=2**30,
        ),
        cost_analysis=lambda: {"flops": 197e12, "bytes accessed": 6e9},
        as_text=lambda: "ENTRY %main () -> f32[] {\n  %a = f32[1000000]{0} all-reduce(%x)\n}",
    )
    found = figures.figures(compiled, Topology("v5e:2x2", CHIPS["v5e"], make_mesh(4)), 8)
    assert found["verdict"] == "does not fit"
    assert found["peak_memory_mib"] == 17 * 1024
    assert found["memory_mib"]["outputs"] == 1024
    assert found["collectives"]["all-reduce"] == {"count": 1, "bytes": 4_000_000, "mb": 4.0}
    assert found["bound_ms"] == {"arithmetic": 1000.0, "traffic": 4 / 819, "step": 1000.0}
    assert found["mb_per_image"] == 3000
    assert found["hbm_mb_per_image"] == 2


@pytest.mark.parametrize(
    ("batch", "parts", "per_device", "expected"),
    [
        (64, 1, None, (64, "")),
        (70, 1, None, (72, "batch of 72, as 70 does not divide over 4 parts")),
        (1, 1, None, (4, "batch of 4, as 1 does not divide over 4 parts")),
        (64, 3, None, (60, "batch of 60, as 64 does not divide over 12 parts")),
        (70, 3, 6, (24, "")),
    ],
)
def test_the_batch_divides_over_the_devices(tiny_config, batch, parts, per_device, expected):
    config = tiny_config(f"--data.batch-size={batch}", f"--optim.accumulate-steps={parts}")
    assert aot.batch_for(config, 4, per_device) == expected


@pytest.mark.parametrize(("parts", "allowed"), [(1, "1 or more"), (2, "multiples of 2")])
def test_a_batch_per_device_is_checked(tiny_config, parts, allowed):
    config = tiny_config(f"--optim.accumulate-steps={parts}")
    with pytest.raises(InputError, match=f"--per-device-batch is -1; allowed: {allowed}"):
        aot.batch_for(config, 4, -1)


@pytest.mark.parametrize(
    "name", ["h100:", "h100:2x2x2", "cuda:2x2", "v5e", "v9:2x2", "v5e:4", "v5e:2x2:2"]
)
def test_unknown_topologies_are_refused(recipe, name, refusal):
    said = refusal(aot.main([*recipe, "--topology", name]))
    assert said.startswith(f"error: unknown topology '{name}'; allowed: v4, v5e, v5p, v6e with a ")
    assert "a100, h100, h200, l4 with a number of devices or hosts x devices" in said


def test_an_unknown_variant_is_refused(recipe, on_cpu, refusal):
    said = refusal(aot.main([*recipe, "--topology", "4", "--against", "unfoldet"]))
    assert "unknown variant 'unfoldet'" in said
    assert "unfolded" in said


def test_a_variant_is_set_beside_the_recipe_and_programs_are_kept(recipe, on_cpu, tmp_path, capsys):
    file, hlo = tmp_path / "rows.json", tmp_path / "kept" / "step.hlo"
    asked = ["--topology", "2", "--against", "derived_norm", "--json", str(file)]
    assert aot.main([*recipe, *asked, "--hlo", str(hlo)]) == 0
    own, other = json.loads(file.read_text())["rows"]
    assert (own["variant"], other["variant"]) == (None, "derived_norm")
    assert hlo.read_text().startswith("HloModule")
    assert (tmp_path / "kept" / "step.derived_norm.hlo").read_text().startswith("HloModule")
    for row in (own, other):
        classes = row["by_class"]
        assert row["kernels"] == sum(each["kernels"] for each in classes.values())
        total = sum(each["bytes_per_image"] for each in classes.values())
        assert row["bytes_per_image"] == pytest.approx(total) == 1e6 * row["hbm_mb_per_image"]
        assert row["temporaries_bytes"] == row["memory_mib"]["temporaries"] * 2**20
        assert row["roof_images_per_s"] == pytest.approx(1e3 * row["batch_size"] / row["roof_ms"])
    printed = capsys.readouterr().out
    assert "2: memory traffic by class" in printed
    assert "derived_norm: MB an image" in printed


def test_one_program_is_kept_of_one_topology(recipe, on_cpu, tmp_path, refusal):
    asked = ["--topology", "2,4", "--hlo", str(tmp_path / "step.hlo")]
    assert "--hlo keeps one program" in refusal(aot.main([*recipe, *asked]))


@pytest.mark.parametrize(
    ("gib", "expected"),
    [(20, "fits"), (70, "fits with XLA_PYTHON_CLIENT_MEM_FRACTION=0.90"), (80, "does not fit")],
)
def test_a_gpu_of_which_jax_takes_three_quarters_unasked(gib, expected):
    target = Topology("h100", CHIPS["h100"], make_mesh(1), "gpu")
    assert figures.verdict(gib * 1024, target) == expected


@pytest.mark.parametrize(("name", "extra"), [("v5e:2x2", "tpu"), ("h100:8", "gpu-aot")])
def test_a_missing_compiler_says_what_to_install(recipe, name, extra, monkeypatch, refusal):
    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda name: None)
    said = refusal(aot.main([*recipe, "--topology", name]))
    assert f"pip install -e '.[{extra}]'" in said


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("ABORTED: Internal error when accessing libtpu multi-process lockfile", "another process"),
        ("INVALID_ARGUMENT: layout is not divisible", "'v5e:3x3' .INVALID_ARGUMENT: layout is not"),
    ],
)
def test_what_libtpu_refuses_is_one_sentence(monkeypatch, said, expected):
    def refuse(**_):
        raise RuntimeError(said)

    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(topology.topologies, "get_topology_desc", refuse)
    with pytest.raises(InputError, match=expected):
        topology.describe("v5e:3x3")


def test_recipe_errors_are_those_of_the_command_line(recipe, tmp_path, capsys):
    assert aot.main([str(tmp_path / "none.yaml"), "--topology", "v5e:2x2"]) == 2
    assert "no recipe at" in capsys.readouterr().err
    assert aot.main([*recipe, "--model.nam", "x", "--topology", "v5e:2x2"]) == 2
    assert "unknown flag '--model.nam'" in capsys.readouterr().err


def test_sizes_of_data_sets_that_are_not_prepared_are_assumed_and_said(tiny_config, tmp_path):
    flags = ["--data.dataset=mnist", "--data.backgrounds=photos", f"--data.data-dir={tmp_path}"]
    work = topology.workload(tiny_config(*flags))
    assert work.resident is not None
    assert work.resident.images.shape == (50_000, 28, 28)
    assert "(assumed: mnist and photos not prepared)" in work.told
    assert work.classes == 10
    plain = ["--data.dataset=cifar10", "--data.composition=plain", f"--data.data-dir={tmp_path}"]
    work = topology.workload(tiny_config(*plain))
    assert work.resident is not None
    assert work.resident.images.shape == (50_000, 32, 32, 3)
    assert work.told.endswith("50,000 images of 32x32 (assumed: cifar10 not prepared)")


def test_photographs_that_are_not_there_are_assumed_to_be_imagenets(tiny_config, tmp_path):
    parts = ["--data.composition=plain", "--data.render=host", "--augment.policy=imagenet"]
    flags = [*parts, f"--data.data-dir={tmp_path}", "--data.validation-examples=null"]
    for number in range(12):
        write_photo(tmp_path / "pets" / "ab"[number % 2] / f"{number}.png", number)
    there = topology.workload(tiny_config(*flags, f"--data.dataset=folder:{tmp_path / 'pets'}"))
    missing = topology.workload(tiny_config(*flags, "--data.dataset=tfds:imagenet2012"))
    assert missing.classes == 1000
    assert "(assumed: 1,281,167 images of 1,000 classes" in missing.told
    shapes = [
        jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), each.example)
        for each in (there, missing)
    ]
    assert shapes[0] == shapes[1]
    with pytest.raises(InputError, match="unknown dataset 'imagent'"):
        topology.workload(tiny_config(*flags, "--data.dataset=imagent"))


def test_images_of_the_host_are_what_the_step_takes(tiny_config):
    work = topology.workload(tiny_config("--data.render=host"))
    assert work.resident is None
    assert work.example["image"].shape == (1, 32, 32, 3)


def test_pmap_is_refused(tiny_config):
    with pytest.raises(InputError, match=r"train\.parallel is pmap; allowed here: jit"):
        topology.workload(tiny_config("--train.parallel=pmap"))


@pytest.mark.slow
def test_what_goes_wrong_in_the_process_of_a_compilation_is_raised_here(tiny_config):
    work = topology.workload(tiny_config())
    with pytest.raises(InputError, match="unknown topology 'h900'"):
        aot.row_apart(tiny_config(), work, Asked(Path("small.yaml"), "h900", 4))


def test_a_network_compiles_for_four_chips_and_sends_one_message(recipe, in_this_process, tmp_path):
    pytest.importorskip("libtpu", reason="libtpu (extra tpu) is not installed")
    file = tmp_path / "rows.json"
    assert aot.main([*recipe, "--topology", "v5e:2x2,v5e:1x1", "--json", str(file)]) == 0
    four, one = json.loads(file.read_text())["rows"]
    assert four["device"] == "TPU v5 lite"
    assert (four["device_count"], one["device_count"]) == (4, 1)
    assert four["collectives"]["all-reduce"]["count"] == 1
    assert four["verdict"] == one["verdict"] == "fits"
    assert four["gflop"] > 0


def test_a_network_compiles_for_gpus(recipe, in_this_process, monkeypatch, tmp_path):
    if not any(map(importlib.util.find_spec, topology.GPU_PLUGINS)):
        pytest.skip("JAX's CUDA plugin (extra gpu-aot) is not installed")
    monkeypatch.setenv("XLA_FLAGS", aot.AUTOTUNE)
    file = tmp_path / "rows.json"
    asked = ["--topology", "h100,l4,h100:2x2", "--json", str(file)]
    assert aot.main([*recipe, *asked]) == 0
    one, small, four = json.loads(file.read_text())["rows"]
    assert (one["device"], small["device"]) == ("NVIDIA H100 80GB HBM3", "NVIDIA L4")
    assert one["collectives"]["all-reduce"]["count"] == 0
    assert (four["device_count"], four["collectives"]["all-reduce"]["count"]) == (4, 1)
    for row in (one, small, four):
        assert row["unordered_scatters"] == []
        assert row["gflop"] > 0
        assert row["by_class"]["convolution forward"]["flop_per_image"] > 0
