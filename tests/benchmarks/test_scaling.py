import json

import pytest

from benchmarks import scaling
from benchmarks.timing import rows
from jaxres.distributed.mesh import make_mesh


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Samples of one step."""
    monkeypatch.setattr(scaling, "SAMPLE_S", 1e-4)


def words(*more):
    sizes = ["--model", "tiny", "--image-size", "32", "--batch-size", "8", "--classes", "10"]
    return [*sizes, "--repeats", "5", *more]


def run(tmp_path, *more):
    file = tmp_path / "rows.json"
    assert scaling.main(words(*more, "--json", str(file))) == 0
    return json.loads(file.read_text())["rows"]


@pytest.mark.slow
def test_real_steps_on_two_devices(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "4")
    held = run(tmp_path, "--devices", "2", "--kind", "weak")
    assert [row["case"] for row in held] == ["tiny weak jit 2", "tiny weak pmap 2"]
    # At least the gradients: two kernels, their scales and offsets, and the head.
    gradients = 4 * (27 * 8 + 72 * 16 + 2 * (8 + 16) + 16 * 10 + 10)
    for row in held:
        assert tuple(row)[: len(rows.SCHEMA)] == rows.SCHEMA
        reduced = row["collectives"]["all-reduce"]
        assert reduced["count"] == row["collective_count"] > 0
        assert gradients <= reduced["bytes"] < 2 * gradients
        assert row["collective_mib"] == pytest.approx(reduced["bytes"] / 2**20)
        assert row["dispatch_ms"] > 0
        assert row["compile_s"] > 0
        assert row["command"].startswith("JAX_NUM_CPU_DEVICES=4 python -m benchmarks.")
        assert row["virtual_devices"]
    assert "virtual and share the cores" in capsys.readouterr().out


class Idle:
    """In place of a training: its steps take no time."""

    compile_s = 1.0

    def __init__(self, config, *, classes, devices):
        if config.data.batch_size // devices > 8:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        self.config, self.mesh, self.compiled = config, make_mesh(devices), self

    def as_text(self):
        return ""

    def run(self, steps):
        assert steps >= 1

    def dispatch_s(self):
        return 1e-4


@pytest.mark.parametrize("asked", [8, 16])
def test_figures_of_every_case_agree(tmp_path, capsys, monkeypatch, asked):
    monkeypatch.setattr(scaling, "Training", Idle)
    held = run(tmp_path, "--batch-size", str(asked))
    assert [row["case"] for row in held] == [
        f"tiny {kind} {mode} {count}"
        for kind in ("weak", "strong")
        for count in (1, 2, 4)
        for mode in ("jit", "pmap")
    ]
    for row in held:
        count = row["device_count"]
        assert row["batch_size"] == (8 * count if row["kind"] == "weak" else 8)
        assert row["images_per_s_per_device"] == pytest.approx(row["images_per_s"] / count)
        step_s = row["step_ms"]["p50"] / 1e3
        assert row["images_per_s"] == pytest.approx(row["batch_size"] / step_s)
        assert row["efficiency"] == pytest.approx(row["ratio"]["median"] / count)
        assert row["ratio"]["pairs"] == 5
        assert (row["against_jit"] is None) == (row["parallel"] == "jit")
    smaller = "a batch of 16 does not fit on a device; measured with 8"
    assert (smaller in capsys.readouterr().err) == (asked == 16)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (
            ["--devices", "64"],
            "--devices asks for 64 devices and there are 4 here; JAX_NUM_CPU_DEVICES=64",
        ),
        (["--devices", "1,3"], "data.batch_size is 8, which does not divide over 3 devices"),
        (["--parallel", "pjit"], "unknown value of --parallel 'pjit'"),
        (["--kind", ","], "--kind names nothing; allowed: weak, strong"),
        (["--repeats", "2"], "--repeats is 2; allowed: 5 or more"),
        (["--image-size", "5"], "data.canvas is 5"),
        (["--model", "tyny"], "unknown model 'tyny'"),
    ],
)
def test_what_cannot_be_asked_for(more, told, refusal):
    assert told in refusal(scaling.main(words(*more)))
