"""Ending exactly our processes: descendants, marked orphans, those that ignore SIGTERM, and nobody else."""

import os
import subprocess
import sys
import time

import pytest

from cluster.local import processes

_STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)


def sleeper(
    code: str = "import time; print('up', flush=True); time.sleep(600)", mark: str = ""
) -> subprocess.Popen[str]:
    environment = os.environ | ({processes.MARK: mark} if mark else {})
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline().strip() == "up"
    return process


@pytest.mark.parametrize("how", ["_from_proc", "_from_ps"])
def test_both_process_tables_know_this_process(how: str) -> None:
    found = getattr(processes, how)()[os.getpid()]
    assert found.parent == os.getppid()


def test_ends_the_family_and_nobody_else() -> None:
    stranger = sleeper()
    parent = sleeper(
        f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {_STUBBORN!r}]); time.sleep(600)", "m1"
    )
    orphan = sleeper(mark="m1")  # no descendant of the root, but marked
    since = processes.started(parent.pid)
    assert since
    members = {process.pid for process in processes.family("m1", {parent.pid: since})}
    assert len(members) == 3
    assert {parent.pid, orphan.pid} <= members
    assert processes.end("m1", {parent.pid: since}, patience=1.0) == set()
    assert parent.wait(5)
    assert orphan.wait(5)
    assert processes.family("m1", {parent.pid: since}) == set()
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_a_reused_pid_is_not_ours() -> None:
    stranger = sleeper()
    assert processes.end("", {stranger.pid: "another start"}, patience=0.2) == set()
    time.sleep(0.2)
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
