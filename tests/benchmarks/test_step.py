import json
import pickle

import pytest

from benchmarks import peers, step
from benchmarks.compiled import program
from benchmarks.hardware.chips import CHIPS
from benchmarks.steps import versus
from benchmarks.timing import rows
from benchmarks.timing.roof import Roof
from jaxres.models.count import count
from jaxres.models.registry import list_models, smallest_image


@pytest.fixture(autouse=True)
def known_roof(monkeypatch):
    """The roof of some machine: measuring this one takes seconds."""
    monkeypatch.setattr(versus.roof, "measured", lambda dtype: Roof(0.2, 50.0))
    monkeypatch.setattr(versus, "MIN_SAMPLE_S", 0.01)


@pytest.fixture
def tiny_peers(monkeypatch):
    """Peers that do nothing, of which `keras` fails; gives the batch sizes of the others."""

    def build(name, work, platform):
        assert platform == "cpu"
        if name == "keras":
            raise RuntimeError("no such layer\nat line 7")
        seen.append(work.batch_size)
        return peers.Peer(lambda steps: None, "1.2", {"a": 1})

    seen = []
    monkeypatch.setattr(peers, "build", build)
    monkeypatch.setattr(peers, "check", lambda names, models: None)
    return seen


def run(tmp_path, *words):
    status = step.main([*words, "--repeats", "5", "--json", str(tmp_path / "rows.json")])
    return status, json.loads((tmp_path / "rows.json").read_text())["rows"]


def test_a_row_without_peers(tmp_path, capsys):
    status, (row,) = run(tmp_path, "--case", "tiny:32:8", "--classes", "10")
    assert status == 0
    assert tuple(row)[: len(rows.SCHEMA)] == rows.SCHEMA
    assert (row["peer"], row["ratio"]) == (None, None)
    missing = [key for key in rows.SCHEMA if row[key] is None and key not in ("peer", "ratio")]
    assert missing in ([], ["commit"])
    assert row["device_count"] == 1
    # Convolutions of 3x3x3x8 to 16x16 and 3x3x8x16 to 8x8, and 16x10: forward and two gradients,
    # but one for the first, which reads the images.
    first, rest = 16 * 16 * 27 * 8, 8 * 8 * 72 * 16 + 160
    assert row["gflop_per_image"] == pytest.approx(2 * (2 * first + 3 * rest) / 1e9)
    flops = row["gflop_per_image"] * 1e9 * row["images_per_s"]
    assert row["mfu"] == pytest.approx(flops / 0.2e12)
    assert 8 / row["images_per_s"] == pytest.approx(row["step_ms"]["p50"] / 1e3)
    assert 0 < row["roof_share"] < 1
    assert "tiny 32px batch 8 float32" in capsys.readouterr().out


@pytest.mark.slow
def test_a_network_without_convolutions_has_no_limit_from_them(tmp_path):
    status, (row,) = run(tmp_path, "--case", "handbook_mlp:28:8", "--classes", "10")
    assert (status, row["roof_share"]) == (0, None)
    forward = count("handbook_mlp", image_size=28, classes=10).gflop
    assert 2 * forward < row["gflop_per_image"] < 3 * forward


def test_models_are_listed_with_their_smallest_images(capsys):
    assert step.main(["--list"]) == 0
    listed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert listed == [[name, str(smallest_image(name))] for name in list_models()]
    assert ["resnet50", "32"] in listed


def test_profile_is_in_the_row_and_printed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(versus.chips, "of_device", lambda kind: CHIPS["h100"])
    words = ("--case", "tiny:32:8", "--classes", "10", "--profile", str(tmp_path / "traces"))
    _, (row,) = run(tmp_path, *words)
    assert row["profile_ms"]["convolution"] > 0
    assert set(row["profile_ms"]) <= {*program.CLASSES, "idle"}
    assert list((tmp_path / "traces").rglob("*.xplane.pb"))
    printed = capsys.readouterr().out
    assert "ms per step while traced" in printed
    assert "ops/conv.py:" in printed
    assert "classes beside their least time" in printed
    whole = row["profile_by_class"][-1]
    assert whole["class"] == "all"
    assert whole["ms"] == pytest.approx(sum(row["profile_ms"].values()))


@pytest.mark.slow
def test_lists_are_crossed():
    words = "--model tiny,resnet18 --image-size 32,64 --batch-size 4,8 --dtype float32,bfloat16"
    works = step._works(step._parser().parse_args(words.split()))
    assert len(set(works)) == 16
    assert {work[:4] for work in works} >= {
        ("resnet18", 32, 8, "bfloat16"),
        ("tiny", 64, 4, "float32"),
    }


@pytest.mark.slow
def test_each_peer_has_a_row(tmp_path, tiny_peers):
    status, found = run(tmp_path, "--case", "tiny:32:8", "--classes", "5", "--peer", "torch,flax")
    assert status == 0
    assert [row["peer"]["name"] for row in found] == ["torch", "flax"]
    assert found[0]["peer_settings"] == {"a": 1}
    assert found[0]["ratio"]["pairs"] == 5
    assert found[0]["ratio"]["median"] < 1  # a peer that does nothing is faster


@pytest.mark.slow
def test_a_peer_that_fails_is_named_and_the_others_go_on(tmp_path, tiny_peers, capsys):
    words = ("--case", "tiny:32:8", "--classes", "5", "--peer", "keras,torch")
    status, found = run(tmp_path, *words)
    assert status == 1
    assert [row["peer"]["name"] for row in found] == ["torch"]
    error = "error: peer 'keras' cannot run tiny 32px batch 8 float32: RuntimeError: no such layer"
    assert error in capsys.readouterr().err.splitlines()


def test_without_any_peer_left_ours_is_measured(tmp_path, tiny_peers):
    words = ("--case", "tiny:32:8", "--classes", "5", "--peer", "keras")
    status, (row,) = run(tmp_path, *words)
    assert (status, row["peer"]) == (1, None)


def test_a_smaller_batch_is_run_by_both_and_said(tmp_path, tiny_peers, monkeypatch):
    class Small(versus.Training):
        def __init__(self, config, **options):
            if config.data.batch_size > 4:
                raise RuntimeError("RESOURCE_EXHAUSTED: 99 GiB")
            super().__init__(config, **options)

    monkeypatch.setattr(versus, "Training", Small)
    words = ("--case", "tiny:32:16", "--classes", "5", "--peer", "torch")
    _, (row,) = run(tmp_path, *words)
    assert (row["batch_size"], row["requested_batch_size"], tiny_peers) == (4, 16, [4])


@pytest.mark.slow
def test_what_never_fits_is_said_and_the_next_case_runs(tmp_path, monkeypatch, capsys):
    class Full(versus.Training):
        def __init__(self, config, **options):
            if config.data.canvas == 64:
                raise RuntimeError("RESOURCE_EXHAUSTED: 99 GiB")
            super().__init__(config, **options)

    monkeypatch.setattr(versus, "Training", Full)
    status, found = run(tmp_path, "--case", "tiny:64:8,tiny:32:8", "--classes", "5")
    assert (status, [row["image_size"] for row in found]) == (1, [32])
    assert "error: tiny 64px batch 8 float32 does not fit" in capsys.readouterr().err


@pytest.mark.slow
def test_on_accelerators_each_case_has_a_process_of_its_own(tmp_path, monkeypatch, capsys):
    called = []

    def call(function, work, args):
        called.append(work.model)
        return function(*pickle.loads(pickle.dumps((work, args))))

    monkeypatch.setattr(step.apart, "devices", lambda: ("gpu", 1))
    monkeypatch.setattr(step.apart, "call", call)
    words = ("--case", "tiny:32:8,handbook_mlp:28:4", "--classes", "5")
    status, found = run(tmp_path, *words)
    assert (status, called) == (0, ["tiny", "handbook_mlp"])
    assert [row["case"].split()[0] for row in found] == called
    assert step.main([*words, "--devices", "99"]) == 2
    assert "train.devices is 99" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_devices_and_steps_per_call(tmp_path, mode):
    words = ("--case", "tiny:32:8", "--classes", "5", "--devices", "2", "--steps-per-call", "3")
    _, (row,) = run(tmp_path, *words, "--parallel", mode)
    assert (row["device_count"], row["parallel"]) == (2, mode)
    assert row["steps_per_sample"] % 3 == 0
    assert row["images_per_s"] == pytest.approx(2 * row["images_per_s_per_device"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "resnet51"], "unknown model 'resnet51': did you mean 'resnet50'?"),
        (["--case", "resnet18:64:8", "--dtype", "bfloat17"], "did you mean 'bfloat16'?"),
        (["--dtype", ","], "--dtype is empty; allowed: float32, bfloat16"),
        (["--peer", "torhc"], "unknown peer 'torhc': did you mean 'torch'?"),
        (["--case", "tiny:32:8", "--peer", "flax"], "unknown model for peer flax 'tiny'"),
        (["--case", "resnet18:30:8"], "30 pixels; allowed for resnet18: 32 pixels or more"),
        (["--case", "resnet18:20:8"], "data.canvas is 20; allowed: 28 to 4096"),
        (["--case", "resnet18:64:8", "--model", "resnet18"], "--case goes without --model"),
        (["--case", "resnet18:64:8", "--repeats", "4"], "--repeats is 4; allowed: 5 or more"),
        (["--case", "resnet18:64:9", "--devices", "2"], "does not divide over 2 devices"),
        (["--devices", "2", "--peer", "flax"], "allowed with --peer: 1"),
        (["--case", "tiny:32:8", "--json", "tests"], "--json is 'tests', which is a folder"),
        (["--case", "tiny:32:8", "--profile", "README.md"], "--profile is 'README.md'"),
        (["--devices", "99"], "train.devices is 99; allowed: 1 to 4"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(words, message, refusal):
    assert message in refusal(step.main(words))


@pytest.mark.parametrize("case", ["", "resnet18", "resnet18:64", "resnet18:64:0", "resnet18:a:8"])
def test_cases_that_are_no_triples_are_refused(case, capsys):
    with pytest.raises(SystemExit) as ended:
        step.main(["--case", case])
    assert ended.value.code == 2
    assert "allowed: " in capsys.readouterr().err
