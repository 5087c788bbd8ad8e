"""Runs whose process is gone are ended by the next command on the store; those of a living one are left alone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.registry import abandoned, store
from pipelines.registry import query as registry
from tests.pipelines.support import PATIENCE, ROOT

KILLED = """
import os, signal, sys
from pathlib import Path
from pipelines.registry import runs, store
opened = store.open_store("", "digits", Path(sys.argv[1]))
parent = runs.batch_run(opened, "killed", "killed batch", {}, {})
runs._run(opened.client(), opened.experiment_id, "killed/size", "killed size", parent)
print(os.getpid(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def statuses(opened: store.Store, key: str) -> list[str]:
    found = opened.client().search_runs([opened.experiment_id], f"tags.`wave.key` LIKE '{key}%'")
    return [run.info.status for run in found]


def test_a_killed_run_is_ended_and_a_living_one_is_not(
    opened: store.Store, workdir: Path, capfd: pytest.CaptureFixture[str]
):
    registry.batch_run(opened, "living", "living", {}, {})
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", KILLED, str(workdir)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == -9, done.stderr
    assert statuses(opened, "killed") == ["RUNNING"] * 2
    capfd.readouterr()
    registry.existing_store("", workdir)
    said = capfd.readouterr().err
    assert re.search(rf"run killed batch \(process {done.stdout.strip()}\) was left RUNNING", said)
    assert statuses(opened, "killed") == ["KILLED"] * 2
    assert statuses(opened, "living") == ["RUNNING"]
    registry.open_store("", "digits", workdir)
    assert capfd.readouterr().err == ""


def test_who_is_surely_gone():
    me = abandoned.this_process().split(" ")
    assert not abandoned.gone(" ".join(me))
    assert abandoned.gone(" ".join([*me[:5], "1"])), "another process has its number now"
    assert abandoned.gone(" ".join([*me[:4], "4194305", me[5]])), "nobody has its number"
    assert abandoned.gone(" ".join([*me[:2], "ffffffff", *me[3:]])), "the machine was started again"
    for unknown in (["elsewhere", *me[1:]], [*me[:3], "pid:[1]", "4194305", me[5]], ["x"], [*me[:4], "x", me[5]]):
        assert not abandoned.gone(" ".join(unknown)), "cannot be known"
