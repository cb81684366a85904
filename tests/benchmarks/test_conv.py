import functools
import json

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import conv
from benchmarks.convolutions import passes
from benchmarks.timing import roof, rows
from benchmarks.timing.roof import Roof
from jaxres.ops.conv import LOWERINGS, Geometry, conv2d

KNOWN_ROOF = Roof(0.2, 50.0)  # the best of two measurements
EXTRA = {"model", "pass", "lowering", "occurrences", "flop", "bytes", "gflops", "intensity"}
FIRST, SECOND = "3x3 s2 3>8 @32", "3x3 s2 8>16 @16"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The roof of some machine, and short samples: measuring takes seconds."""
    roofs = iter([Roof(0.1, 50.0), Roof(0.2, 40.0)])
    monkeypatch.setattr(roof, "measured", functools.cache(lambda dtype: next(roofs)))
    monkeypatch.setattr(passes, "SAMPLE_S", 1e-4)


def run(tmp_path, *words):
    sizes = ("--model", "tiny", "--image-size", "32", "--batch-size", "4", "--repeats", "5")
    status = conv.main([*sizes, *words, "--json", str(tmp_path / "rows.json")])
    held = json.loads((tmp_path / "rows.json").read_text())["rows"]
    return status, [row for row in held if "geometry" in row], held


def test_every_pass_of_every_convolution_is_a_row(tmp_path, capsys):
    status, measured, held = run(tmp_path, "--plot", str(tmp_path / "roof.png"))
    assert status == 0
    assert {row["case"] for row in measured} == {
        f"{FIRST} forward",
        f"{FIRST} kernel gradient",
        *(f"{SECOND} {which}" for which in passes.PASSES),
    }
    for row in measured:
        assert tuple(row)[: len(rows.SCHEMA)] == rows.SCHEMA
        assert row.keys() >= EXTRA
        assert row["chosen"]
        assert row["lowering"] in LOWERINGS
        assert row["ratio"] is None
    assert [row["lost_ms"] for row in measured] == sorted(
        (row["lost_ms"] for row in measured), reverse=True
    )
    assert (tmp_path / "roof.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "most time lost first" in printed
    assert "tiny all passes" in printed
    assert len(held) == len(measured) + len(passes.PASSES) + 1


def test_figures_of_a_row_agree(tmp_path):
    _, measured, held = run(tmp_path)
    row = next(row for row in measured if row["case"] == f"{SECOND} forward")
    # 4 images of 16x16x8 in and 8x8x16 out, 3x3.
    assert row["flop"] == 2 * 4 * 8 * 8 * 16 * 9 * 8
    assert row["bytes"] == 4 * (4 * 16 * 16 * 8 + 9 * 8 * 16 + 4 * 8 * 8 * 16)
    for row in measured:
        ms = row["step_ms"]["p50"]
        assert row["gflops"] * ms * 1e6 == pytest.approx(row["flop"])
        assert row["intensity"] == pytest.approx(row["flop"] / row["bytes"])
        least_ms = KNOWN_ROOF.seconds(row["flop"], row["bytes"]) * 1e3
        assert row["roof_share"] == pytest.approx(least_ms / ms)
        assert row["lost_ms"] == pytest.approx(row["occurrences"] * (ms - least_ms))
    total = next(row for row in held if row["case"] == "tiny all passes")
    assert total["step_ms"]["p50"] == pytest.approx(sum(row["step_ms"]["p50"] for row in measured))
    assert total["lost_ms"] == pytest.approx(sum(row["lost_ms"] for row in measured))
    assert total["occurrences"] == 5


@pytest.mark.slow
def test_all_lowerings_are_compared_with_xla(tmp_path, capsys):
    status, measured, held = run(tmp_path, "--lowering", "all")
    assert status == 0
    forward = {row["lowering"]: row for row in measured if row["case"] == f"{SECOND} forward"}
    # Neither pointwise nor depthwise nor of stride 1.
    assert {"xla", "patches"} <= forward.keys()
    assert not {"dot", "shifted", "winograd"} & forward.keys()
    assert [row["chosen"] for row in forward.values()].count(True) == 1
    assert forward["xla"]["ratio"] == {"median": 1.0, "min": 1.0, "max": 1.0, "pairs": 5}
    assert all(row["ratio"]["median"] > 0 for row in measured)
    sums = {row["lowering"]: row for row in held if row["case"] == "tiny all passes"}
    assert sums.keys() == {"chosen", "xla", "fastest"}
    assert sums["fastest"]["step_ms"]["p50"] <= sums["xla"]["step_ms"]["p50"]
    assert "x xla" in capsys.readouterr().out


def test_one_lowering_alone_is_summed_under_its_name(tmp_path):
    _, measured, held = run(tmp_path, "--lowering", "patches")
    assert {row["lowering"] for row in measured} == {"patches"}
    assert {row["lowering"] for row in held} == {"patches"}


@pytest.mark.parametrize("which", passes.PASSES)
def test_pass_computes_what_its_name_says(which):
    geometry = Geometry(2, (5, 5), 4, (3, 3), 6, (2, 2), ((1, 1), (1, 1)), 2, "float32")
    random = np.random.default_rng(0)
    shapes = {"images": (2, 5, 5, 4), "kernel": (3, 3, 2, 6), "output": (2, 3, 3, 6)}
    arrays = {
        name: jnp.asarray(random.standard_normal(shape, np.float32))
        for name, shape in shapes.items()
    }

    operands = [arrays[name] for name in passes.OPERANDS[which]]
    result = passes.one_pass(geometry, which, operands)
    # <output, conv(images, kernel)> is the same number seen from each of the three.
    output = conv2d(arrays["images"], arrays["kernel"], stride=2, padding=1, groups=2)
    expected = float(jnp.vdot(output, arrays["output"]))
    assert float(jnp.vdot(result, arrays[passes.RESULT[which]])) == pytest.approx(expected, 1e-4)


def test_lowerings_that_do_not_fit_in_memory_are_left_out(tmp_path, monkeypatch, capsys):
    sampler = passes._sampler

    def full(geometry, which, lowering, operands):
        if lowering == "patches":
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return sampler(geometry, which, lowering, operands)

    monkeypatch.setattr(passes, "_sampler", full)
    _, measured, _ = run(tmp_path, "--lowering", "xla,patches")
    assert "patches" not in {row["lowering"] for row in measured}
    assert f"{SECOND} forward: patches does not fit in memory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--lowering", "pathces"], "unknown lowering in --lowering 'pathces': did you mean"),
        (["--lowering", ","], "--lowering names nothing; allowed: chosen, all, xla"),
        (["--repeats", "4"], "--repeats is 4; allowed: 5 or more"),
        (["--model", "resnet5"], "unknown model 'resnet5'"),
        (["--model", "handbook_mlp"], "--model is handbook_mlp; allowed: models with convolutions"),
    ],
)
def test_what_cannot_be_asked_for(words, told, refusal):
    assert told in refusal(conv.main(["--image-size", "32", "--batch-size", "4", *words]))


def test_an_image_of_size_nought_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        conv.main(["--image-size", "0"])
    assert ended.value.code == 2
    assert "'0'; allowed: a whole number above 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("geometry", "case"),
    [
        (
            Geometry(8, (56, 56), 64, (3, 3), 64, (1, 1), ((1, 1), (1, 1)), 1, "float32"),
            "3x3 s1 64>64 @56",
        ),
        (
            Geometry(8, (9, 7), 8, (1, 3), 8, (2, 1), ((0, 0), (1, 1)), 8, "float32"),
            "1x3 s2x1 8>8 g8 @9x7",
        ),
        (
            Geometry(8, (56, 56), 64, (3, 3), 64, (2, 2), ((0, 1), (0, 1)), 1, "float32"),
            "3x3 s2 64>64 @56 p0,1,0,1",
        ),
    ],
)
def test_case_names_what_tells_convolutions_apart(geometry, case):
    assert conv.case_of(geometry) == case
