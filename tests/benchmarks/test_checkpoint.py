import json

import pytest

from benchmarks import checkpoint
from benchmarks.timing import rows

WORDS = ["--model", "tiny", "--image-size", "32", "--batch-size", "8", "--classes", "10"]


@pytest.mark.slow
def test_a_row_of_a_real_checkpoint(tmp_path, capsys):
    folder = tmp_path / "disk"
    folder.mkdir()
    file = tmp_path / "rows.json"
    assert checkpoint.main([*WORDS, "--dir", str(folder), "--json", str(file)]) == 0
    (row,) = json.loads(file.read_text())["rows"]
    assert tuple(row)[: len(rows.SCHEMA)] == rows.SCHEMA
    # Weights and two moments, running statistics, the step and AdamW's counts: all 4 bytes.
    weights = 27 * 8 + 72 * 16 + 2 * (8 + 16) + 16 * 10 + 10
    numbers = row["state_mib"] * 2**20 / 4
    assert 3 * weights + 2 * (8 + 16) < numbers < 3 * weights + 2 * (8 + 16) + 8
    assert row["size_mib"] > 0
    assert 0 < row["blocked_ms"]["p50"] <= row["written_s"] * 1e3
    assert row["blocked_share"] == pytest.approx(row["blocked_ms"]["p50"] / 30_000)
    state_mb = row["state_mib"] * 2**20 / 1e6
    assert row["write_mb_per_s"] == pytest.approx(state_mb / row["written_s"])
    assert row["restore_mb_per_s"] == pytest.approx(state_mb / row["restore_s"])
    assert len(row["steps_beside_save"]) == 5
    assert min(row["steps_beside_save"]) >= 1
    assert row["ratio"]["pairs"] == 5
    assert row["ratio"]["min"] > 0
    assert list(folder.iterdir()) == []
    assert "tiny adamw" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--optimizer", "adamv"], "unknown optimiser in optim.name 'adamv': did you mean 'adam"),
        (["--model", "tyny"], "unknown model 'tyny'"),
        (["--repeats", "3"], "--repeats is 3; allowed: 5 or more"),
        (["--batch-size", "6"], "data.batch_size is 6, which does not divide over 4 devices"),
        (["--dir", "nowhere/at/all"], "--dir is 'nowhere/at/all'; allowed: a folder"),
    ],
)
def test_what_cannot_be_asked_for(more, told, refusal):
    assert told in refusal(checkpoint.main([*WORDS, *more]))
