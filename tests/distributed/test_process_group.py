"""What makes a process one of several, without starting any."""

import pathlib
import threading
import time

import pytest

from jaxres.distributed import launchers, process_group
from jaxres.runtime.errors import InputError
from jaxres.training.rundir import _require_shared

ALL = {
    "JAXRES_COORDINATOR": "host-0:1234",
    "JAXRES_PROCESS_ID": "1",
    "JAXRES_PROCESS_COUNT": "2",
}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*launchers.VARIABLES, "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def join() -> process_group.ProcessGroup:
    return process_group.join(join_timeout_s=1, peer_timeout_s=1)


def test_a_process_started_by_itself_is_alone() -> None:
    peers = join()
    assert (peers.index, peers.count, peers.first) == (0, 1, True)
    assert peers.gather("x") == ["x"]


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"JAXRES_PROCESS_ID": ""}, "given without JAXRES_PROCESS_ID"),
        ({"JAXRES_COORDINATOR": "host-0"}, "JAXRES_COORDINATOR is 'host-0'; allowed: HOST:PORT"),
        ({"JAXRES_COORDINATOR": "host-0:99999"}, "allowed: HOST:PORT"),
        ({"JAXRES_PROCESS_COUNT": "two"}, "JAXRES_PROCESS_COUNT is 'two'; allowed: 1 or more"),
        ({"JAXRES_PROCESS_ID": "2"}, "JAXRES_PROCESS_ID is '2'; allowed: 0 to 1"),
        ({"JAXRES_PROCESS_ID": "-1"}, "JAXRES_PROCESS_ID is '-1'; allowed: 0 to 1"),
    ],
)
def test_wrong_variables_are_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], problem: str
) -> None:
    for name, value in {**ALL, **variables}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=problem):
        join()


class Table(dict[str, str]):
    """What JAX keeps for the processes, as far as a watch needs it."""

    def key_value_set(self, key: str, value: str, allow_overwrite: bool = False) -> None:
        if key in self and not allow_overwrite:
            raise KeyError(key)
        self[key] = value

    def key_value_dir_get(self, folder: str) -> list[tuple[str, str]]:
        return [(key, value) for key, value in self.items() if key.startswith(f"{folder}/")]


def test_a_second_run_of_the_same_processes_is_watched_as_well(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended: list[int] = []
    noticed = threading.Event()

    table = Table()
    peers = process_group.ProcessGroup(0, 2, table)

    def exit_now(status: int) -> None:
        ended.append(status)
        assert peers._watch is not None
        peers._watch.end("")  # no thread is left behind
        noticed.set()

    monkeypatch.setattr(process_group, "exit_now", exit_now)
    with peers.watched(1):
        other = process_group.Watch(process_group.ProcessGroup(1, 2, table), table, 1, 0)
        time.sleep(1.5)
        other.end("")
    assert not ended
    with peers.watched(1):  # the other does not come to it
        assert noticed.wait(20)
    assert ended == [1]
    assert "error: process 1 of 2 has not answered for 1 s" in capsys.readouterr().err


def test_one_process_of_one_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**ALL, "JAXRES_PROCESS_COUNT": "1", "JAXRES_PROCESS_ID": "0"}.items():
        monkeypatch.setenv(name, value)
    assert join() is process_group.ALONE


@pytest.mark.parametrize(
    "launcher",
    [
        {"SLURM_STEP_NUM_TASKS": "4"},
        {"OMPI_COMM_WORLD_SIZE": "2"},
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "3"},
    ],
    ids=lambda launcher: next(iter(launcher)),
)
def test_our_own_variables_overrule_a_launchers(
    monkeypatch: pytest.MonkeyPatch, launcher: dict[str, str]
) -> None:
    def refuse(**given: object) -> None:
        raise AssertionError(given)

    monkeypatch.setattr("jax.distributed.initialize", refuse)
    for name, value in {**launcher, "JAXRES_PROCESS_COUNT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert join() is process_group.ALONE
    monkeypatch.setenv("JAXRES_PROCESS_ID", "3")
    with pytest.raises(InputError, match="JAXRES_PROCESS_ID is '3'; allowed: 0 to 0"):
        join()


@pytest.mark.parametrize(
    ("variables", "launcher"),
    [
        ({}, ""),
        ({"SLURM_STEP_NUM_TASKS": "1"}, ""),
        ({"SLURM_STEP_NUM_TASKS": "4"}, "Slurm"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "Open MPI"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, ""),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, "Kubernetes"),
    ],
)
def test_launchers_are_recognised(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], launcher: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert launchers.launcher() == launcher


@pytest.mark.parametrize(
    ("tasks_per_node", "devices"), [("1(x4)", [0, 1]), ("1", [0, 1]), ("2(x4)", None), ("", None)]
)
def test_a_slurm_task_alone_on_its_host_takes_all_gpus(
    monkeypatch: pytest.MonkeyPatch, tasks_per_node: str, devices: list[int] | None
) -> None:
    monkeypatch.setenv("SLURM_STEP_TASKS_PER_NODE", tasks_per_node)
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "2")
    assert launchers.devices_of_this_host() == devices


def test_a_folder_that_is_not_the_first_processs_is_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jaxres.training.rundir.SHARED_S", 0.2)
    (tmp_path / "lock").write_text("another")
    with pytest.raises(InputError, match="is not the folder that process 0 writes to"):
        _require_shared(tmp_path, "token")
    (tmp_path / "lock").write_text("token")
    _require_shared(tmp_path, "token")
