"""What started a process as one of several: our own variables, or a launcher that JAX knows."""

import glob
import importlib.util
import os
from typing import Any

from jaxres.runtime.errors import InputError

VARIABLES = ("JAXRES_COORDINATOR", "JAXRES_PROCESS_ID", "JAXRES_PROCESS_COUNT")


def given() -> dict[str, Any] | None:
    """The arguments that our own variables give: none at all, `{}`, for a process alone.

    They overrule a launcher's, which may start many runs of one process each.
    """
    values = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    if not values:
        return None
    if values.get("JAXRES_PROCESS_COUNT") == "1":  # needs no coordinator
        values = {"JAXRES_COORDINATOR": "alone:1", "JAXRES_PROCESS_ID": "0"} | values
    if missing := [name for name in VARIABLES if name not in values]:
        raise InputError(
            f"{' and '.join(values)} given without {' and '.join(missing)}; allowed: all or none"
        )
    coordinator = values["JAXRES_COORDINATOR"]
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InputError(f"JAXRES_COORDINATOR is '{coordinator}'; allowed: HOST:PORT of process 0")
    count, index = values["JAXRES_PROCESS_COUNT"], values["JAXRES_PROCESS_ID"]
    if not count.isdecimal() or int(count) < 1:
        raise InputError(f"JAXRES_PROCESS_COUNT is '{count}'; allowed: 1 or more")
    if not index.isdecimal() or int(index) >= int(count):
        raise InputError(f"JAXRES_PROCESS_ID is '{index}'; allowed: 0 to {int(count) - 1}")
    if int(count) == 1:
        return {}
    return {
        "coordinator_address": coordinator,
        "num_processes": int(count),
        "process_id": int(index),
        "cluster_detection_method": "deactivate",
    }


def launcher() -> str:
    """What started this process as one of several, as far as JAX can take it from there."""
    environment = os.environ
    if _number("SLURM_STEP_NUM_TASKS") > 1:
        return "Slurm"
    if _number("OMPI_COMM_WORLD_SIZE") > 1:
        return "Open MPI"
    if {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= environment.keys():
        return "Kubernetes"
    tpu_host = glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*")
    if tpu_host and importlib.util.find_spec("libtpu"):
        return "TPU pod"
    return ""


def _number(variable: str) -> int:
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else 0


def devices_of_this_host() -> list[int] | None:
    """All GPUs of a host that runs one Slurm task; JAX itself would take one GPU for each task."""
    if "JAX_LOCAL_DEVICE_IDS" in os.environ:
        return None
    alone = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "").partition("(")[0] == "1"
    gpus = _number("SLURM_GPUS_ON_NODE")
    return list(range(gpus)) if alone and gpus else None
