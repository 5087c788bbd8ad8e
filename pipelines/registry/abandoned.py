"""Runs that a dead process left RUNNING: every run says which process writes it, and the next command ends the dead."""

import os
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

PROCESS_TAG = "wave.process"
"""``HOST MACHINE BOOT NAMESPACE PID START``: enough to tell a process that is gone from one that cannot be seen."""


def this_process() -> str:
    """What a run's tag says of the process that writes it."""
    return " ".join((*_host(), str(os.getpid()), _started(os.getpid())))


def gone(process: str) -> bool:
    """Whether a process is surely gone: it ran on this machine, and the machine was started again or has it no more.

    False where that cannot be known: on another machine, or in a container whose processes are not seen from here.
    """
    parts = process.split(" ")
    if len(parts) != 6 or not parts[4].isdecimal() or tuple(parts[:2]) != _host()[:2]:
        return False
    _, _, boot, namespace, pid, start = parts
    if boot != _host()[2]:
        return True
    return namespace == _host()[3] and _started(int(pid)) != start


def end_abandoned(client: MlflowClient) -> list[str]:
    """End the runs of processes that are gone, as KILLED, and return their names; also sizes whose batch has ended.

    What a person may not change on a server stays as it is.
    """
    with suppress(MlflowException):
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        running = client.search_runs(experiments, "attributes.status = 'RUNNING'", max_results=1000)
        ours = [run for run in running if PROCESS_TAG in run.data.tags]
        dead = {run.info.run_id: run for run in ours if gone(run.data.tags[PROCESS_TAG])}
        for run in ours:
            if _parent(run) in dead:
                dead.setdefault(run.info.run_id, run)
        for run_id in dead:
            client.set_terminated(run_id, "KILLED")
        return [f"{run.info.run_name} (process {run.data.tags[PROCESS_TAG].split(' ')[-2]})" for run in dead.values()]
    return []


def _parent(run: Run) -> str:
    return run.data.tags.get(MLFLOW_PARENT_RUN_ID, "")


@cache
def _host() -> tuple[str, str, str, str]:
    """Name, installation, start and process namespace of this machine; "-" for what it does not say."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = "-"
    name = "".join(socket.gethostname().split()) or "-"
    return name, _read("/etc/machine-id")[:8] or "-", _read("/proc/sys/kernel/random/boot_id")[:8] or "-", namespace


def _started(pid: int) -> str:
    """When a process started, in the kernel's ticks; "" if there is none."""
    text = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return text[19] if len(text) > 19 and text[0] not in ("Z", "X") else ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""
