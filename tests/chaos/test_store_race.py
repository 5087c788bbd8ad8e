"""Eight processes open a new SQLite store at once."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipelines.support import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
_OPEN = """
import sys, json
from pathlib import Path
from mlflow import MlflowClient
from pipelines.registry.store import open_store
print("ready", flush=True)
sys.stdin.readline()
store = open_store("", "digits", Path.cwd())
run = store.client().create_run(store.experiment_id)
print(json.dumps([store.experiment_id, run.info.run_id]))
"""


def test_eight_processes_open_a_new_store_at_once(tmp_path: Path, note: Callable[[str, int], None]) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    opening = [
        subprocess.Popen(
            [sys.executable, "-c", _OPEN], cwd=tmp_path, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for _ in range(8)
    ]  # fmt: skip
    for process in opening:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in opening:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=600) for process in opening]
    assert [process.returncode for process in opening] == [0] * 8, [err for _, err in answers]
    experiments, runs = zip(*(json.loads(out.splitlines()[-1]) for out, _ in answers), strict=True)
    assert len(set(experiments)) == 1
    assert len(set(runs)) == 8
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute("SELECT count(*) FROM experiments WHERE name = 'digits'").fetchone() == (1,)
        assert {row[0] for row in database.execute("SELECT run_uuid FROM runs")} == set(runs)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("mlflow")) == ["mlflow.db"]
    note("7 eight processes open a new store", 8)
