import contextlib
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jaxres.config import LogConfig
from jaxres.logs.rows import read_rows
from jaxres.runtime.errors import InputError, Interrupted, TrainingFailed
from jaxres.training import loop, run
from tests.training.unplug import unplugged_at

BLOCK = 32 * 1024  # of LevelDB's log format, which wandb's files have after 7 bytes


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    import wandb

    for name in ("WANDB_API_KEY", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    for name in ("WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    yield
    wandb.teardown()


def records(run_dir: Path) -> list[list[Any]]:
    """What each of wandb's files of a run holds, once its process has ended and written all."""
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()

    found = []
    for file in sorted(run_dir.glob("wandb/offline-run-*/*.wandb")):
        data, place, pieces, kept = file.read_bytes(), 7, b"", []
        while place + 7 <= len(data):
            if BLOCK - place % BLOCK < 7:  # no room for a header in this block
                place += BLOCK - place % BLOCK
                continue
            _, length, kind = struct.unpack_from("<IHB", data, place)
            pieces += data[place + 7 : place + 7 + length]
            place += 7 + length
            if kind in (1, 4):  # whole, or the last piece
                record = wandb_internal_pb2.Record()  # pyright: ignore[reportAttributeAccessIssue]
                record.ParseFromString(pieces)
                kept.append(record)
                pieces = b""
        found.append(kept)
    return found


def history(kept: list[Any]) -> list[dict[str, float]]:
    """The numbers of each row that was logged."""

    def name(item: Any) -> str:
        return item.key or ".".join(item.nested_key)

    rows = [record.history for record in kept if record.HasField("history")]
    return [{name(item): float(item.value_json) for item in row.item} for row in rows]


def test_an_offline_run_holds_the_rows_and_a_resumed_one_goes_on(tiny_config, tmp_path: Path):
    config = tiny_config("--log.wandb=us/digits", "--checkpoint.every-steps=3")
    with unplugged_at(14):
        loop.train(config, tmp_path / "run")
    loop.train(config, tmp_path / "run")

    before, after = records(tmp_path / "run")
    (begun,), (resumed,) = (
        [record.run for record in kept if record.HasField("run")][:1] for kept in (before, after)
    )
    assert (begun.entity, begun.project, begun.display_name) == ("us", "digits", "run")
    assert begun.run_id == resumed.run_id
    assert {item.key for item in begun.config.update} >= {"data", "optim", "train"}
    written = read_rows(tmp_path / "run" / "metrics.jsonl")
    written = [row for row in written if row["step"] > 12 or row["split"] == "test"]
    sent = history(after)
    assert len(sent) == len(written) == 6
    for theirs, ours in zip(sent, written, strict=True):
        split = ours["split"]
        assert theirs["step"] == ours["step"]
        assert theirs[f"{split}/loss"] == pytest.approx(ours["loss"])
        assert theirs[f"{split}/accuracy"] == pytest.approx(ours["accuracy"])
    assert [record.exit.exit_code for record in after if record.HasField("exit")] == [0]


@pytest.mark.slow
def test_a_failed_run_is_told_as_one(tiny_config, tmp_path: Path):
    config = tiny_config("--log.wandb=digits", "--optim.learning-rate=1e30")
    with pytest.raises(TrainingFailed):
        loop.train(config, tmp_path / "run")
    (kept,) = records(tmp_path / "run")
    assert [record.exit.exit_code for record in kept if record.HasField("exit")] == [1]


@pytest.mark.slow
def test_a_broken_connection_does_not_end_the_run(
    tiny_config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    import wandb

    def broken(*args: Any, **kwargs: Any) -> None:
        raise wandb.Error("the service is gone")

    monkeypatch.setattr(wandb.Run, "log", broken)
    summary = loop.train(tiny_config("--log.wandb=digits"), tmp_path / "run")
    assert summary["test"]["examples"] == 50
    said = capfd.readouterr().err
    assert said.count("cannot write 'Weights & Biases, project digits' (the service is gone)") == 1


def test_a_run_that_saves_on_a_signal_has_not_failed(tiny_config, tmp_path: Path):
    config = tiny_config("--log.wandb=digits")
    with contextlib.suppress(Interrupted), run.start_run(config, tmp_path / "run"):
        raise Interrupted
    (kept,) = records(tmp_path / "run")
    assert [record.exit.exit_code for record in kept if record.HasField("exit")] == [0]


@pytest.mark.parametrize(
    ("mode", "reason"), [("online", ".*API key.*; WANDB_MODE=offline"), ("bogus", ".*mode")]
)
def test_without_a_login_or_in_no_such_mode_nothing_begins(
    tiny_config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, reason: str
):
    monkeypatch.setenv("WANDB_MODE", mode)
    with pytest.raises(InputError, match=f"its run cannot begin: {reason}"):
        loop.train(tiny_config("--log.wandb=digits"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_the_package_nothing_begins(
    tiny_config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"wandb is not installed: pip install '\.\[wandb\]'"):
        loop.train(tiny_config("--log.wandb=digits"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("project", ["a/b/c", "/a", "a/", "a b", "a:b", "x" * 129])
def test_what_is_no_project_is_refused(project: str):
    with pytest.raises(ValueError, match=r"log\.wandb is .*; allowed: PROJECT or ENTITY/PROJECT"):
        LogConfig(wandb=project)
