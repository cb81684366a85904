"""A GPU's trace in the format that XLA's sources document; no GPU has written one for us yet."""

from pathlib import Path

import jax
import pytest

from benchmarks.compiled.program import operations
from benchmarks.hardware.chips import CHIPS, GPUS, of_device
from benchmarks.steps import beside_roof, opclasses
from benchmarks.steps.opclasses import Profile

PROGRAMS = Path(__file__).parents[1] / "programs"
PROGRAM = (PROGRAMS / "gpu.hlo").read_text()


@pytest.fixture
def profile():
    """One traced step."""
    text = (PROGRAMS / "gpu_trace.txtpb").read_text()
    data = jax.profiler.ProfileData.from_text_proto(text)
    known = operations(PROGRAM)
    busy, idle = opclasses.shares(opclasses._events(data, known))
    ms = {name: ns / 1e6 for name, ns in busy.items()}
    return Profile(
        ms, {name: known.get(name) or opclasses.of_kernel(name) for name in ms}, idle / 1e6
    )


def test_kernels_are_read_from_the_streams_alone(profile):
    assert profile.by_operation == pytest.approx(
        {"conv.1": 0.004, "stats.1": 0.002, "wgrad.1": 0.003, "MemcpyD2H": 0.001}
    )
    assert profile.idle == pytest.approx(0.001)
    assert profile.by_class() == pytest.approx(
        {"convolution": 0.007, "reduction": 0.002, "copy": 0.001}
    )


def test_each_class_is_beside_its_least_time(profile, capsys):
    chip = CHIPS["h100"]
    made = beside_roof.by_class(profile, PROGRAM, chip, images=2)
    rows = {row["class"]: row for row in made}
    maps, image, kernel = 2 * 2 * 8 * 8 * 16, 2 * 2 * 16 * 16 * 3, 2 * 16 * 3 * 3 * 3
    forward = rows["convolution forward"]
    assert forward["ms"] == pytest.approx(0.004)
    assert forward["roof_ms"] == pytest.approx(0.002)  # a launch
    assert forward["roof_share"] == pytest.approx(0.5)
    assert forward["mb_per_image"] == pytest.approx((maps + image + kernel) / 2 / 1e6)
    assert forward["gb_per_s"] == pytest.approx((maps + image + kernel) / 4e-6 / 1e9)
    assert rows["batch norm statistics"]["ms"] == pytest.approx(0.002)
    assert rows["convolution kernel gradient"]["ms"] == pytest.approx(0.003)
    assert rows["convolution input gradient"]["ms"] is None  # of which the trace has nothing
    assert rows[beside_roof.OUTSIDE]["ms"] == pytest.approx(0.001)
    assert rows["all"]["ms"] == pytest.approx(0.011)
    beside_roof.show(made, "small")
    assert "small: classes beside their least time" in capsys.readouterr().out


def test_several_steps_of_a_call_are_one(profile):
    one = beside_roof.by_class(profile, PROGRAM, CHIPS["h100"], images=2)[0]
    halved = beside_roof.by_class(profile, PROGRAM, CHIPS["h100"], images=2, steps_per_call=2)[0]
    assert halved["roof_ms"] == one["roof_ms"] / 2


def test_chips_are_known_by_the_name_of_the_device():
    assert of_device(GPUS["h100"].name) is CHIPS["h100"]
    assert of_device("TPU v5 lite") is CHIPS["v5e"]
    assert of_device("cpu") is None
