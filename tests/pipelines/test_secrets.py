"""A whole run against a server with a user and a password: neither password nor token is in anything that it leaves."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from pipelines.registry.store import Store, explained, open_store
from tests.pipelines.registry.test_registry_server import server
from tests.pipelines.support import ROOT, tiny
from wave.errors import WaveError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
PASSWORD, TOKEN = "correct-horse-7f3a", "5ec2e7" * 10


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def holding(secret: str, *roots: Path) -> Iterator[Path]:
    """The files below the roots that hold the secret, in the clear."""
    for root in roots:
        for file in root.rglob("*"):
            with contextlib.suppress(OSError):
                if file.is_file() and secret.encode() in file.read_bytes():
                    yield file


def keep_ray_logs(folder: Path, into: Path) -> None:
    """Copy what Ray has written below the folder; a file that goes meanwhile is left out."""
    for file in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if file.is_file() and not file.is_symlink():
                copy = into / file.relative_to(folder)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)


def test_a_run_leaves_no_secret(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    port = free_port()
    (tmp_path / "server").mkdir()
    (tmp_path / "here").mkdir()
    scratch = Path(tempfile.mkdtemp(prefix="wave-", dir="/tmp"))  # short: Ray puts Unix sockets there
    request.addfinalizer(lambda: shutil.rmtree(scratch, ignore_errors=True))
    with server(tmp_path / "server", port) as uri:
        address = uri.replace("://", f"://someone:{PASSWORD}@")
        environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_AUTH_TOKEN": TOKEN, "RAY_TMPDIR": str(scratch)}
        environment |= {"MLFLOW_TRACKING_PASSWORD": PASSWORD + "-too", "COLUMNS": "200"}
        settings = (
            "targets.grid={embed_dim=[32], depth=[2]}",
            f"mlflow.tracking_uri={address}",
            "distil.workers=1",
            "initialise.compare_scratch=false",
        )
        command = [sys.executable, "-m", "pipelines", "run", *tiny(*settings)]
        with (tmp_path / "here/log").open("wb") as log:
            running = subprocess.Popen(command, cwd=tmp_path / "here", env=environment, stdout=log, stderr=log)
            deadline = time.monotonic() + 1200
            while running.poll() is None and time.monotonic() < deadline:
                keep_ray_logs(scratch, tmp_path / "kept")  # they go when the run ends
                time.sleep(0.5)
            running.kill()
            code = running.wait()
        text = (tmp_path / "here/log").read_text()
        assert code == 0, text
        registered = mlflow.MlflowClient(uri).get_registered_model("digits").aliases
    assert list(registered) == ["d032-l02"]
    assert f"registry: http://someone:***@127.0.0.1:{port}" in text
    assert "someone" in (tmp_path / "here/runs/digits/resolved.toml").read_text()
    assert list(scratch.iterdir()) == []
    roots = (tmp_path,)  # the output, the server's database and artifacts, Ray's logs
    assert list((tmp_path / "kept").rglob("*.log"))
    assert len(list(holding("stage 1", *roots))) > 1  # the search finds what is there
    for secret in (PASSWORD, TOKEN):
        assert sorted(holding(secret, *roots)) == []


def test_a_server_that_goes_is_named_without_its_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"http://someone:{PASSWORD}@127.0.0.1:{free_port()}"
    with pytest.raises(WaveError) as refused:
        open_store(address, "digits", tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    before = mlflow.get_tracking_uri()
    with pytest.raises(WaveError) as gone, explained(address):
        Store(address, "0").client().get_run("0")
    mlflow.set_tracking_uri(before)
    for error in (refused, gone):
        assert PASSWORD not in str(error.value) and "someone" in str(error.value), error.value
