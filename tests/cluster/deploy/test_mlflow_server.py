"""The script for a machine of one's own starts a server that lets nobody in without the password."""

import base64
import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from cluster.deploy import render, values
from cluster.deploy.mlflow_server import script

_PASSWORD = "a-password-of-a-test"


def ask(address: str, password: str = "") -> int:
    """The HTTP status of a search for experiments."""
    headers = {"Content-Type": "application/json"}
    if password:
        headers["Authorization"] = "Basic " + base64.b64encode(f"admin:{password}".encode()).decode()
    request = urllib.request.Request(
        f"{address}/api/2.0/mlflow/experiments/search", b'{"max_results": 1}', headers, method="POST"
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("flask_wtf"), reason="needs pip install 'mlflow[auth]' (Flask-WTF)")
def test_the_server_of_the_script_wants_the_password(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    source = tmp_path / "values.toml"
    source.write_text(render.VALUES.read_text().replace("port = 5000", f"port = {port}"))
    file, log = tmp_path / "mlflow-server.sh", tmp_path / "log"
    file.write_text(script(values.load(source)))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")} | {
        "MLFLOW_AUTH_ADMIN_PASSWORD": _PASSWORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "a long random text",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    with log.open("wb") as out:
        server = subprocess.Popen(["sh", str(file), str(tmp_path / "store")], env=environment, stdout=out, stderr=out)
    try:
        address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 240
        while True:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            try:
                refused = ask(address)
                break
            except OSError:
                time.sleep(1)
        assert refused == 401
        assert ask(address, "another-password") == 401
        assert ask(address, _PASSWORD) == 200
        assert _PASSWORD not in log.read_text()
    finally:
        server.terminate()
        server.wait(60)
