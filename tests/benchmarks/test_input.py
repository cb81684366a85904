import json
import sys
import types

import numpy as np
import pytest

from benchmarks import input as program
from benchmarks import photographs as photographs_program
from benchmarks.timing import streams
from jaxres.config import Config, recipe
from jaxres.data.compose.scale_blend import ScaleBlendPlan
from jaxres.data.composed import open_split
from jaxres.data.readers import decoding
from tests.data.conftest import write_photo

SMALL = ["--data.canvas=32", "--data.digit-side=24", "--repeats=7", "--seconds=0.005"]


@pytest.fixture(autouse=True)
def _no_lead(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(streams, "LEAD_S", 0.0)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch):
    """A peer that is there everywhere: empty images, as fast as they come."""
    seen = []

    def batches(dataset, batch_size, *, workers):
        seen.append((len(dataset), batch_size, workers))
        while True:
            yield np.zeros((batch_size, 1)), np.zeros(batch_size)

    module = types.SimpleNamespace(VERSION="1.2", batches=batches)
    monkeypatch.setitem(sys.modules, "stub_peer", module)
    monkeypatch.setitem(program.PEERS, "stub", program.Peer("a stub", "json", "stub_peer"))
    return seen


def test_rows_without_a_peer_on_embedded_data(tmp_path, capsys):
    path = tmp_path / "rows.json"
    assert program.main([*SMALL, "--workers=0,1", "--batch-size=40", "--json", str(path)]) == 0
    rows = {row["case"]: row for row in json.loads(path.read_text())["rows"]}
    assert list(rows) == [
        "plans",
        "host pictures, in process",
        "host pictures, 1 workers",
        "feed",
        "device rendering",
    ]
    for case, row in rows.items():
        assert row["benchmark"] == "input"
        assert row["unit"] == ("plans" if case in ("plans", "feed") else "pictures")
        assert row["data"].startswith("1197 of digits over 4 squares of embedded")
        assert row["batch_size"] == 40
        assert row["repeats"] == 7
        spread = row["images_per_s_spread"]
        assert 0 < spread["min"] <= row["images_per_s"] <= spread["max"]
        assert row["peer"] is None
    if program.cores.CAN_RESTRICT:
        assert rows["plans"]["cores"] == rows["host pictures, in process"]["cores"] == 1
        assert rows["feed"]["cores"] == program.cores.count()
    assert "device rendering" in capsys.readouterr().out


def test_plain_images_are_measured_and_their_backgrounds_not_named(tmp_path):
    path = tmp_path / "rows.json"
    assert program.main([*SMALL, "--data.composition=plain", "--json", str(path)]) == 0
    for row in json.loads(path.read_text())["rows"]:
        assert row["data"] == "1197 of digits, canvas 32 px"


def test_peers_make_scaled_digits_only(stub, refusal):
    said = refusal(program.main([*SMALL, "--data.composition=plain", "--peer=stub"]))
    assert "data.composition is plain; allowed with --peer: scale_blend" in said
    assert not stub


@pytest.fixture
def photographs(tmp_path):
    """A folder as `python -m benchmarks.photographs` makes it, and flags to train on it."""
    for place in range(6):
        write_photo(tmp_path / "from" / f"{place}.png", place, height=60, width=90)
    words = ["--from", str(tmp_path / "from"), "-o", str(tmp_path / "made"), "--count", "40"]
    assert photographs_program.main(words) == 0
    return tmp_path / "made"


CROPS = ["--data.composition=plain", "--data.render=host", "--augment.policy=imagenet"]


def test_photographs_have_imagenets_size(photographs, refusal):
    files = sorted(photographs.rglob("*.jpg"))
    assert len(files) == 40
    assert {decoding.read_image(file).shape for file in files[:5]} == {(375, 500, 3)}
    again = ["--from", str(photographs), "-o", str(photographs)]
    assert "exists; allowed: a new folder" in refusal(photographs_program.main(again))


def test_parts_of_photographs_are_measured(photographs, stub, tmp_path, refusal):
    path = tmp_path / "rows.json"
    words = [*SMALL, *CROPS, f"--data.dataset=folder:{photographs}", "--data.batch-size=8"]
    words += ["--data.validation-examples=null", "--seconds=0.01", "--json", str(path)]
    assert program.main([*words, "--peer=stub"]) == 0
    made = json.loads(path.read_text())["rows"]
    assert [row["case"] for row in made] == ["plans", "host pictures, in process"]
    assert made[1]["peer"]["name"] == "a stub"


def test_torch_needs_torchvision_for_photographs(photographs, stub, monkeypatch, refusal):
    monkeypatch.setitem(program.PEERS, "torch", program.Peer("a stub", "torch", "stub_peer"))
    there = {"torchvision": None}
    monkeypatch.setattr(program.importlib.util, "find_spec", lambda name: there.get(name, name))
    words = [*SMALL, *CROPS, f"--data.dataset=folder:{photographs}", "--data.batch-size=8"]
    said = refusal(program.main([*words, "--data.validation-examples=null", "--peer=torch"]))
    assert "--peer torch needs torchvision to cut photographs, which is not installed" in said
    assert not stub


def test_peers_take_turns_with_ours(stub, tmp_path):
    path = tmp_path / "rows.json"
    words = [*SMALL, "--data.batch-size=32", "--peer=stub", "--json", str(path)]
    assert program.main(words) == 0
    assert stub == [(1197, 32, 0)]
    (row,) = [row for row in json.loads(path.read_text())["rows"] if row["peer"]]
    assert row["case"] == "host pictures, in process"
    assert row["peer"]["name"] == "a stub"
    assert row["peer"]["version"] == "1.2"
    assert row["peer"]["images_per_s"] > row["images_per_s"]
    assert row["ratio"]["pairs"] == 7
    assert row["ratio"]["max"] < 1


def test_without_affinity_the_row_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setattr(program.cores, "CAN_RESTRICT", False)
    path = tmp_path / "rows.json"
    assert program.main([*SMALL, "--json", str(path)]) == 0
    row = json.loads(path.read_text())["rows"][0]
    assert row["cores"] is None
    assert row["images_per_s_per_core"] is None
    assert "sched_setaffinity" in row["cores_reason"]


def test_windows_take_turns(monkeypatch: pytest.MonkeyPatch):
    taken = []
    clock = iter(range(1000))
    monkeypatch.setattr(streams.time, "perf_counter", lambda: next(clock))

    def take(name):
        taken.append(name)
        return 10

    takes = {"": lambda: take("a"), "peer": lambda: take("b")}
    rates = streams.rates(takes, seconds=3, repeats=2)
    assert "".join(taken) == "aabbaabb"
    assert rates == {"": [20 / 3] * 2, "peer": [20 / 3] * 2}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--peer=torhc"], "unknown peer in --peer 'torhc': did you mean 'torch'?"),
        (["--peer=absent"], "--peer absent needs no_such_package, which is not installed here"),
        (["--recipe=none.yaml"], "no recipe at 'none.yaml'"),
        (["--data.batch-size=5000"], "data.batch_size is 5000"),
        (["--batch-size=0"], "data.batch_size is 0; allowed: 1 or more"),
        (["--data.dataset=mnist"], "mnist"),
    ],
)
def test_wrong_input_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path, refusal, words, message
):
    absent = program.Peer("absent", "no_such_package", "no_such_module")
    monkeypatch.setitem(program.PEERS, "absent", absent)
    assert message in refusal(program.main([*SMALL, f"--data.data-dir={tmp_path}", *words]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--repeats=6"], "'6'; allowed: 7 or more"),
        (["--workers=a"], "'a'; allowed: whole numbers with commas"),
        (["--seconds=0"], "'0'; allowed: seconds above 0"),
    ],
)
def test_wrong_arguments_end_with_status_2(capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        program.main(words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def _opened(*flags: str):
    config = recipe.parse(Config, ["--data.canvas=64", "--data.render=host", *flags], prog="test")
    return open_split(config, "train")


@pytest.mark.reference
def test_torch_makes_the_images_of_our_plans():
    pytest.importorskip("torch", reason="torch is not installed")
    from benchmarks.peers import torch_input

    dataset = _opened(
        "--data.digit-side-range", "8", "64", "--data.placement=random", "--data.opacity=0.3"
    )
    digits = np.arange(40, dtype=np.int32)
    plan = dataset.compose.draw(digits, seed=0, stream="train", epoch=0, first=0)
    assert isinstance(plan, ScaleBlendPlan)
    ours = dataset.batch(digits, epoch=0, first=0)
    peer = torch_input.ScaledDigits(dataset)
    for k in range(len(digits)):
        theirs = peer.image(
            int(plan.digit[k]),
            int(plan.photo[k]),
            crop=tuple(plan.crop[k]),
            side=int(plan.side[k]),
            corner=tuple(plan.corner[k]),
            opacity=float(plan.opacity[k]),
        )
        assert theirs.dtype == np.uint8
        assert np.abs(ours["image"][k].astype(int) - theirs).max() <= 1


@pytest.mark.reference
@pytest.mark.parametrize("placement", ["center", "random"])
@pytest.mark.parametrize("name", ["torch", "tf"])
def test_peer_batches_show_every_digit_over_its_photograph(name, placement):
    """On one photograph without room for another crop, only the digit's square may differ."""
    peer = program.PEERS[name]
    pytest.importorskip(peer.package, reason=f"{peer.package} is not installed")
    dataset = _opened(
        "--data.photo-side=64", "--data.digit-side=32", f"--data.placement={placement}"
    )
    batches = program._peer(name).batches(dataset, 128, workers=0)
    labels = []
    changed = np.zeros((64, 64), bool)
    for _ in range(len(dataset) // 128):
        images, batch_labels = (np.asarray(each) for each in next(batches))
        assert images.shape == (128, 64, 64, 3)
        assert images.dtype == np.uint8
        labels += batch_labels.tolist()
        off = np.abs(images[:, None].astype(int) - dataset.resident.photos[None]).max(-1)
        nearest = off[np.arange(128), (off > 0).sum((2, 3)).argmin(1)]
        assert ((nearest > 0).sum((1, 2)) <= 32 * 32).all()
        changed |= (nearest > 0).any(0)
    batches.close()
    centre = np.zeros_like(changed)
    centre[16:48, 16:48] = True
    assert changed[centre].all()
    assert changed[~centre].any() == (placement == "random")
    counts = np.bincount(labels, minlength=10)
    if name == "torch":  # an epoch holds every digit once, but for the last part of a batch
        assert (np.bincount(dataset.source.labels) - counts).sum() == len(dataset) % 128
    assert (counts > 80).all()


@pytest.mark.reference
def test_tf_resizes_nearly_as_ours():
    """The same digit over the same photograph; the kernels differ (a = -0.5 and -0.75)."""
    pytest.importorskip("tensorflow", reason="tensorflow is not installed")
    from benchmarks.peers import tf_input

    dataset = _opened("--data.backgrounds=black", "--data.digit-side=64", "--data.opacity=1")
    images, labels = next(tf_input.batches(dataset, 8, workers=0))
    digits = np.arange(len(dataset), dtype=np.int32)
    ours = dataset.batch(digits, epoch=0, first=0)
    for image, label in zip(images, labels, strict=True):
        off = np.abs(ours["image"].astype(int) - image).mean((1, 2, 3))
        assert off.min() < 6
        assert ours["label"][off.argmin()] == label


@pytest.mark.reference
@pytest.mark.parametrize("name", ["torch_uint8", "tf"])
def test_peers_cut_the_same_parts_of_photographs(name, photographs, request):
    """The whole of a photograph, the one part of all its area; mirrored or not."""
    package = program.PEERS[name].package
    pytest.importorskip(package, reason=f"{name} is not installed")
    if package == "torch":
        request.getfixturevalue("torchvision_package")
    whole = ["--augment.crop-area", "1", "1", "--augment.crop-ratio", "1.3333", "1.3334"]
    dataset = _opened(
        *CROPS, *whole, f"--data.dataset=folder:{photographs}", "--data.validation-examples=null"
    )
    numbers = np.arange(len(dataset), dtype=np.int32)
    ours = dataset.batch(numbers, epoch=0, first=0)
    either = np.stack([ours["image"], ours["image"][:, :, ::-1]]).astype(int)
    batches = program._peer(name).batches(dataset, 8, workers=0)
    images, labels = (np.asarray(each) for each in next(batches))
    batches.close()
    if name == "torch_uint8":
        images = images.transpose(0, 2, 3, 1)
    assert images.shape == (8, 64, 64, 3)
    for image, label in zip(images, labels, strict=True):
        off = np.abs(either - image).mean((2, 3, 4)).min(0)
        assert off.min() < 2  # TensorFlow's has no antialiasing
        assert ours["label"][off.argmin()] == label
