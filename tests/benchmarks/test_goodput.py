import json

import numpy as np
import pytest

from benchmarks import goodput
from benchmarks.goodput import CAUSES, Costs

DAY_S = 86_400.0


def costs(**changed):
    """A run that fails every ten hours."""
    plain = Costs(36_000, blocked_s=1, written_s=2, notice_s=60, start_s=100, read_s=5)
    return plain._replace(**changed)


def shares(costs, every_s, runs=300):
    """The mean share of ten days lost by each cause, and failures in a day."""
    rng = np.random.default_rng(0)
    found = [goodput.simulate(costs, every_s, 10 * DAY_S, rng) for _ in range(runs)]
    lost = {cause: np.mean([each[cause] for each, _ in found]) / 10 / DAY_S for cause in CAUSES}
    return lost, np.mean([failures for _, failures in found]) / 10


def test_each_cause_costs_what_it_should():
    lost, failures = shares(costs(slowest=1.1), every_s=600)
    assert failures == pytest.approx(2.4, rel=0.05)
    # On the mean half an interval is lost, and what was still being written.
    assert lost["work lost"] == pytest.approx(failures * (300 + 2) / DAY_S, rel=0.1)
    assert lost["checkpoints"] == pytest.approx(1 / 601, rel=0.05)
    for cause, seconds in (("noticing", 60), ("starting", 100), ("reading", 5)):
        assert lost[cause] == pytest.approx(failures * seconds / DAY_S, rel=0.05)
    trained = 1 - sum(lost[cause] for cause in CAUSES if cause != CAUSES[0])
    assert lost[CAUSES[0]] == pytest.approx(trained * (1 - 1 / 1.1), rel=1e-6)


def test_without_failures_only_checkpoints_cost():
    lost, failures = shares(costs(failure_s=1e15), every_s=99, runs=2)
    assert failures == 0
    assert lost["checkpoints"] == pytest.approx(0.01, rel=1e-3)
    assert sum(lost.values()) == pytest.approx(lost["checkpoints"])


def test_a_run_that_cannot_start_in_time_gets_nowhere():
    lost, _ = shares(costs(failure_s=10, start_s=1e4), every_s=600, runs=2)
    assert sum(lost.values()) > 0.99


def test_hosts_that_fail_while_it_starts_make_it_start_again():
    lost, failures = shares(costs(failure_s=200.0), every_s=10, runs=20)
    alive = 1 - lost["noticing"] - lost["starting"] - lost["reading"]
    # As many failures in the time it is down as in the time it runs.
    assert failures == pytest.approx(DAY_S / 200, rel=0.05)
    assert alive < 200 / (200 + 165)


def test_the_best_interval_is_near_youngs(tmp_path, capsys):
    file = tmp_path / "rows.json"
    assert goodput.main(["--hosts", "1000", "--runs", "20", "--json", str(file)]) == 0
    (row,) = json.loads(file.read_text())["rows"]
    assert row["best"]
    assert row["young_s"] / 2 < row["every_s"] < row["young_s"] * 2
    assert row["goodput_least"] <= row["goodput"] <= row["goodput_most"] < 1
    assert "best every" in capsys.readouterr().out


def test_intervals_asked_for_are_all_shown(tmp_path):
    file = tmp_path / "rows.json"
    asked = ["--hosts", "8,64", "--every", "60,600", "--runs", "2", "--json", str(file)]
    assert goodput.main(asked) == 0
    rows = json.loads(file.read_text())["rows"]
    assert [(row["hosts"], row["every_s"]) for row in rows] == [
        (8, 60),
        (8, 600),
        (64, 60),
        (64, 600),
    ]
    assert sum(row["best"] for row in rows) == 2


def test_more_hosts_wait_longer_for_the_slowest_and_for_the_storage():
    args = goodput._parser().parse_args([])
    few, many = (goodput.costs_of(args, hosts) for hosts in (8, 4000))
    assert 1 < few.slowest < many.slowest
    assert (few.read_s, many.read_s) == (0.8, pytest.approx(4000 * 0.282 / 10))
    assert few.failure_s == 500 * many.failure_s
    assert goodput.slowest_of(100, 0.0, 0) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--days", "0"], "--days is 0; allowed: a number, above 0"),
        (["--blocked-s", "-1"], "--blocked-s is -1; allowed: a number, 0 or more"),
        (["--storage-gbs", "nan"], "--storage-gbs is nan"),
        (["--seed", "-1"], "--seed is -1"),
    ],
)
def test_what_no_run_has_is_refused(words, message, refusal):
    assert message in refusal(goodput.main(words))
