"""The demo through a local cluster, from a clean clone: submitted, its follower killed, whole, and all of it ended."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest

from cluster.local import processes, state
from pipelines.config import local_login
from tests.chaos.conftest import Tally
from tests.chaos.support import PATIENCE, SIZES, finished, until
from tests.pipelines.support import ROOT, tiny

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]
FILE = "pipelines/experiments/digits.toml"
Command = Callable[..., str]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    subprocess.run(["git", "clone", "-q", str(ROOT), str(tmp_path / "clone")], check=True)
    return tmp_path / "clone"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW_", "PYTHONPATH"))}
    return plain | {"WAVE_CLUSTER_STATE": str(tmp_path / "state"), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


@pytest.fixture
def command(clone: Path, environment: dict[str, str], tmp_path: Path) -> Iterator[Command]:
    """``python -m cluster ...`` in the clone; gives what it printed. The cluster is down at the end in any case."""

    def call(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "cluster", *words],
            cwd=clone,
            env=environment,
            capture_output=True,
            text=True,
            timeout=4 * PATIENCE,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    yield call
    call("down", "--local")


def test_the_demo_from_a_clean_clone(
    clone: Path,
    environment: dict[str, str],
    command: Command,
    tmp_path: Path,
    tally: Tally,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command("up", "--local")
    login = json.loads((tmp_path / "state" / local_login.FILE).read_text())
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", login["username"])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", login["password"])
    submit = ("submit", FILE, *tiny()[1:], "--follow")
    log = tmp_path / "follower.log"
    with log.open("wb") as output:
        follower = subprocess.Popen(
            [sys.executable, "-m", "cluster", *submit], cwd=clone, env=environment, stdout=output, stderr=output
        )
    until(lambda: "ancestor: training" in log.read_text() or follower.poll() is not None, "the job's first lines")
    assert follower.poll() is None, log.read_text()
    follower.send_signal(signal.SIGKILL)
    follower.wait()

    assert re.match(r"digits-\w{10}  RUNNING ", command("status"))
    until(lambda: " RUNNING " not in command("status"), "the job's end", 4 * PATIENCE)
    assert re.match(r"digits-\w{10}  SUCCEEDED ", command("status")), command("logs")
    text = command("logs")
    assert "4 of 4 done, 0 failed" in text and f"{clone}/runs/digits/results.csv" in text
    before = finished(clone)
    assert len(before) == 2 + len(SIZES)

    again = command(*submit)
    assert "it continues the run" in again and "4 sizes, 4 already there, 0 to do" in again
    recorded = state.load(tmp_path / "state")
    uri = recorded.services["mlflow"].url
    assert set(mlflow.MlflowClient(uri).get_registered_model("digits").aliases) == set(SIZES)
    tally("follower killed, submitted again", clone, before, uri=uri)

    roots = {service.pid: service.since for service in recorded.services.values()}
    assert len(processes.family(recorded.mark, roots)) > 5
    assert re.match(r"ended \d+ processes", command("down", "--local"))
    assert processes.family(recorded.mark, roots) == set()
    assert not Path(recorded.scratch).exists()
    everyone = (Path(f"/proc/{pid}/cmdline") for pid in processes.table())
    assert not [file for file in everyone if file.is_file() and str(clone).encode() in file.read_bytes()]
    assert "no cluster" in command("status", code=2)
