import json

import pytest

from benchmarks import pods
from benchmarks.hardware import chips, links
from benchmarks.hardware.links import LINKS, all_reduce, shape
from jaxres.models.count import count

MB100 = 100e6


def aot_row(batch, roof_ms, devices=8, **more):
    """What `pods` reads of a row of `aot`."""
    return {
        "benchmark": "aot",
        "device": chips.GPUS["h100"].name,
        "device_count": devices,
        "batch_size": batch * devices,
        "roof_ms": roof_ms,
        "collectives": {"all-reduce": {"count": 1, "bytes": MB100}},
        **more,
    }


STEP_ROW = {
    "benchmark": "step",
    "device": chips.GPUS["h100"].name,
    "device_count": 1,
    "model": "cifar_resnet20",
    "image_size": 32,
    "classes": 10,
    "batch_size": 100,
    "step_ms": {"p50": 100.0},
}


@pytest.fixture
def steps(tmp_path):
    """1 ms, and 0.1 ms for each image."""
    file = tmp_path / "steps.json"
    made = [aot_row(batch, 1 + 0.1 * batch) for batch in (16, 50, 400)]
    file.write_text(json.dumps({"rows": [*made, aot_row(16, 99.0, variant="unfolded")]}))
    return file


def test_eight_gpus_exchange_by_their_switch_alone():
    found = all_reduce(LINKS["h100"], 8, MB100)
    assert found.links == pytest.approx(2 * 7 / 8 * 100 / 450)
    assert found.network == 0
    assert found.latency == pytest.approx((links.START_US + 2 * 7 * links.NVLINK_US) / 1e3)


def test_hosts_exchange_an_eighth_each_over_the_network():
    found = all_reduce(LINKS["h100"], 64, MB100)
    assert found.links == pytest.approx(2 * 7 / 8 * 100 / 450)
    assert found.network == pytest.approx(2 * 7 / 8 * 100 / 8 / 50)
    more = 2 * 3 * links.NETWORK_US / 1e3  # a tree of eight hosts
    assert found.latency - all_reduce(LINKS["h100"], 8, MB100).latency == pytest.approx(more)


def test_one_device_exchanges_nothing():
    assert all_reduce(LINKS["h100"], 1, MB100).total == 0
    assert all_reduce(LINKS["v5e"], 1, MB100).total == 0


@pytest.mark.parametrize(
    ("chip", "devices", "sides"),
    [
        ("v5e", 8, (2, 4)),
        ("v5e", 256, (16, 16)),
        ("v5p", 64, (4, 4, 4)),
        ("v5p", 2048, (8, 16, 16)),
    ],
)
def test_slices_are_as_square_as_they_can_be(chip, devices, sides):
    assert shape(LINKS[chip], devices) == sides


def test_a_slice_whose_ends_are_not_joined_has_half_of_its_links():
    whole, part = (all_reduce(LINKS["v5e"], count, MB100).links for count in (256, 64))
    assert whole == pytest.approx(2 * 255 / 256 * 100 / 200)
    assert part == pytest.approx(2 * 63 / 64 * 100 / 100)
    slices = all_reduce(LINKS["v5e"], 2048, MB100)
    assert slices.network == pytest.approx(2 * 7 / 8 * 100 / 256 / 3.1)


def test_weak_and_strong_scaling(steps, tmp_path, capsys):
    file = tmp_path / "rows.json"
    asked = ["--steps", str(steps), "--devices", "8,64", "--batch", "50", "--global-batch", "6400"]
    assert pods.main([*asked, "--reached", "0.5", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())["rows"]
    assert [row["batch_per_device"] for row in rows] == [50, 50, 800, 100]
    assert [row["extrapolated"] for row in rows] == [False, False, True, False]
    weak = rows[0]
    exchange = all_reduce(LINKS["h100"], 8, MB100).total
    assert weak["step_ms"] == pytest.approx((1 + 5) / 0.5)
    assert weak["images_per_s_per_device"] == pytest.approx(50e3 / (12 + exchange))
    assert weak["overlapped_images_per_s_per_device"] == pytest.approx(50e3 / 12)
    assert weak["efficiency"] == pytest.approx(12 / (12 + exchange))
    assert weak["overlapped_efficiency"] == 1
    assert "Predictions from a model" in capsys.readouterr().out


def test_beside_what_was_published_the_first_is_met(steps, tmp_path):
    file = tmp_path / "rows.json"
    assert pods.main(["--steps", str(steps), "--published", "--json", str(file)]) == 0
    checked = [row for row in json.loads(file.read_text())["rows"] if "over_published" in row]
    assert [row["device_count"] for row in checked] == [8, 64, 2528]
    assert checked[0]["over_published"] == pytest.approx(1)
    for row in checked:
        assert row["over_published"] <= row["overlapped_over_published"]


@pytest.fixture
def measured(tmp_path):
    """1 ms for each image of CIFAR's ResNet-20."""
    file = tmp_path / "step.json"
    made = [STEP_ROW, STEP_ROW | {"batch_size": 200, "step_ms": {"p50": 200.0}}]
    file.write_text(json.dumps({"rows": made}))
    return file


def test_measured_steps_count_as_they_are(measured, tmp_path):
    out = tmp_path / "rows.json"
    asked = ["--steps", str(measured), "--batch", "150", "--devices", "8"]
    assert pods.main([*asked, "--json", str(out)]) == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert row["step_ms"] == 150
    assert (
        row["exchanged_bytes"] == 4 * count("cifar_resnet20", image_size=32, classes=10).parameters
    )


def test_what_was_published_may_be_faster_than_what_was_measured(measured, tmp_path, capsys):
    out = tmp_path / "rows.json"
    assert pods.main(["--steps", str(measured), "--published", "--json", str(out)]) == 0
    first = next(row for row in json.loads(out.read_text())["rows"] if "over_published" in row)
    assert first["over_published"] == pytest.approx(1)
    assert first["reached"] > 7  # 7,160 images/s beside a thousand
    assert f"{first['reached']:.2f} of the speed measured" in capsys.readouterr().out


def test_a_share_of_least_times_is_not_of_measured_ones(measured, refusal):
    asked = ["--steps", str(measured), "--reached", "0.5"]
    assert "--steps has measured steps" in refusal(pods.main(asked))


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        ("", [], "holds no rows of aot or step"),
        ("[]", [], "holds no rows of aot or step"),
        ('{"rows": []}', [], "has 0 batches of a known chip; needed: two or more"),
        ('{"rows": [{"device": "cpu"}]}', [], "holds no rows of aot or step: 'batch_size'"),
        ([aot_row(16, 1.0)], [], "has 1 batches of h100"),
        ([aot_row(1, 1.0, collectives={}), aot_row(2, 1.0, collectives={})], [], "is exchanged"),
        ([aot_row(1, 1.0), aot_row(2, 1.0)], ["--reached", "2"], "--reached is 2.0"),
        ([aot_row(1, 1.0), aot_row(2, 1.0)], ["--global-batch", "9"], "does not divide over 8"),
        (
            [aot_row(1, 1.0), aot_row(2, 1.0), STEP_ROW],
            [],
            "has several steps, needed: one: aot; step cifar_resnet20 32",
        ),
        (
            [aot_row(1, 1.0), aot_row(2, 1.0, dtype="float32")],
            [],
            "has several steps, needed: one: aot; aot float32",
        ),
        ([aot_row(1, 1.0), aot_row(2, 1.0)], ["--chip", "v5e"], "has 0 batches of v5e"),
        (
            [aot_row(1, 1.0), aot_row(2, 1.0), aot_row(2, 1.0, device="TPU v5 lite")],
            [],
            "has several chips; --chip names one: h100, v5e",
        ),
    ],
)
def test_what_is_no_file_of_steps_is_refused(content, words, message, tmp_path, refusal):
    file = tmp_path / "steps.json"
    file.write_text(content if isinstance(content, str) else json.dumps({"rows": content}))
    assert message in refusal(pods.main(["--steps", str(file), *words]))


def test_published_figures_are_of_h100s(tmp_path, refusal):
    file = tmp_path / "steps.json"
    made = [aot_row(batch, 1.0, device="TPU v5 lite") for batch in (1, 2)]
    file.write_text(json.dumps({"rows": made}))
    assert "--published is of h100" in refusal(pods.main(["--steps", str(file), "--published"]))
