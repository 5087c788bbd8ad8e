"""The driver is killed at random moments of a run; the same command goes on each time: nothing lost or done twice."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest

from tests.pipelines.support import ROOT, command, tiny

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]
KILLS = 10


def test_killed_at_ten_random_moments_the_registry_is_whole(tmp_path: Path) -> None:
    random.seed(0)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    made: dict[str, int] = {}
    for _ in range(KILLS):
        driver = subprocess.Popen(
            [sys.executable, "-m", "pipelines", "run", *tiny()],
            cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        time.sleep(random.uniform(5, 60))
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        for file in (tmp_path / "runs/digits/models").glob("*.json"):
            made.setdefault(file.stem, (file.with_suffix("") / "model.safetensors").stat().st_mtime_ns)
    done = command(tmp_path, "run", *tiny(), timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    planned = {"d032-l02", "d048-l02", "d032-l03", "d048-l03"}
    results = json.loads((tmp_path / "runs/digits/results.json").read_text())
    assert {row["size"] for row in results["sizes"]} == planned
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    assert set(client.get_registered_model("digits").aliases) == planned
    assert len(client.search_model_versions("name = 'digits'")) == len(planned)
    for name, before in made.items():
        assert (tmp_path / f"runs/digits/models/{name}/model.safetensors").stat().st_mtime_ns == before
