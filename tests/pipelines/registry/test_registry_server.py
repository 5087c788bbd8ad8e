"""The registry through a real MLflow server on loopback: the same results, and an outage of the server survived."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest
import requests

from pipelines.registry import query as registry
from wave.errors import WaveError


@contextmanager
def server(folder: Path, port: int) -> Iterator[str]:
    """``mlflow server`` with its own database; ended by its process group, workers included."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "kept")]
    env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    env.pop("MLFLOW_TRACKING_URI", None)
    uri = f"http://127.0.0.1:{port}"
    with (folder / "server.log").open("a") as log:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + 450
        while not answers(uri):
            assert process.poll() is None and time.monotonic() < until, (folder / "server.log").read_text()
            time.sleep(0.2)
        yield uri
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def answers(uri: str) -> bool:
    try:
        return requests.get(uri + "/health", timeout=2).ok
    except requests.RequestException:
        return False


@pytest.mark.slow
def test_a_server_and_its_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = mlflow.get_tracking_uri()
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "config.json").write_text("{}")
    (plain / "model.safetensors").write_bytes(bytes(range(256)) * 4000)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    with server(tmp_path, port) as uri:
        opened = registry.open_store(uri, "digits", tmp_path)
        run_id = registry.batch_run(opened, "batch", "batch", {"a": 1}, {})
        versions = [registry.publish(opened, plain, "digits", "d032-l02", run_id, {}, "", {"accuracy": 0.5})] * 2
        assert versions == [1, 1]
        pulled = registry.pull(opened, "digits", "d032-l02", tmp_path / "pulled")
        assert (pulled / "model.safetensors").read_bytes() == (plain / "model.safetensors").read_bytes()
        assert registry.show_model(opened, "digits", "d032-l02").metrics == {"accuracy": 0.5}

    with pytest.raises(WaveError, match="no MLflow server answers"):
        registry.open_store(uri, "digits", tmp_path)
    published: list[int] = []
    writer = threading.Thread(
        target=lambda: published.append(registry.publish(opened, plain, "digits", "d064-l04", run_id, {}, "", {}))
    )
    writer.start()  # into the outage
    time.sleep(3)
    with server(tmp_path, port):
        writer.join(timeout=600)
        assert published == [2]
        assert [row.alias for row in registry.list_models(opened)] == ["d032-l02", "d064-l04"]
    mlflow.set_tracking_uri(before)
    mlflow.set_registry_uri("")
