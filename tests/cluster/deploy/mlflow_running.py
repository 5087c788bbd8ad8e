"""An MLflow server that the rendered script started, and what one asks it."""

import base64
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.deploy import mlflow_server, render, values

ADMIN, ACCOUNT = ("admin", "a-password-of-a-test"), ("wave", "the-nodes-password")
_CLEAN = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "WAVE_"))}
SECRETS = _CLEAN | {
    "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN[1],
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "a long random text",
    "WAVE_MLFLOW_PASSWORD": ACCOUNT[1],
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
}


@dataclass
class Server:
    """A server that the script started."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    loaded: values.Values

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, who: tuple[str, str] | None, path: str, body: dict[str, Any] | None = None, method: str = "") -> int:
        """The HTTP status of a request of `who`."""
        headers = {"Content-Type": "application/json"}
        if who:
            headers["Authorization"] = "Basic " + base64.b64encode(":".join(who).encode()).decode()
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.address + path, data, headers, method=method or ("GET" if body is None else "POST")
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=240) as reply:
                return reply.status
        except urllib.error.HTTPError as error:
            return error.code

    def search(self, who: tuple[str, str] | None) -> int:
        return self.ask(who, "/api/2.0/mlflow/experiments/search", {"max_results": 1})

    def users(self, who: tuple[str, str], step: str, body: dict[str, Any]) -> int:
        path = f"/api/2.0/mlflow/users/{step}"
        if step == "get":
            return self.ask(who, f"{path}?{urllib.parse.urlencode(body)}")
        methods = {"create": "POST", "delete": "DELETE"}
        return self.ask(who, path, body, methods.get(step, "PATCH"))

    def account(self, ready: Path, **variables: str) -> subprocess.Popen[str]:
        """The container beside the server in Kubernetes, as it is rendered, at this server's address."""
        _, deployment, _ = mlflow_server.manifests(self.loaded)
        container = deployment["spec"]["template"]["spec"]["containers"][1]
        command = [sys.executable, *container["command"][1:-1], str(ready)]
        names = {variable["name"] for variable in container["env"]}
        given = {
            "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN[0],
            "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN[1],
            "WAVE_MLFLOW_USERNAME": ACCOUNT[0],
            "WAVE_MLFLOW_PASSWORD": ACCOUNT[1],
        } | variables
        assert names == given.keys()
        out = subprocess.PIPE
        return subprocess.Popen(command, env=_CLEAN | given, stdout=out, stderr=out, text=True)


def start(folder: Path, secrets: dict[str, str]) -> Server:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    source = folder / "values.toml"
    source.write_text(render.VALUES.read_text().replace("port = 5000", f"port = {port}"))
    loaded = values.load(source)
    file, log = folder / "mlflow-server.sh", folder / "log"
    file.write_text(mlflow_server.script(loaded))
    with log.open("wb") as out:
        process = subprocess.Popen(["sh", str(file), str(folder / "store")], env=secrets, stdout=out, stderr=out)
    return Server(process, port, log, loaded)


def wait(server: Server, text: str) -> None:
    """Until the log says `text`, or the server has ended."""
    deadline = time.monotonic() + 240
    while text not in server.log.read_text():
        assert server.process.poll() is None, server.log.read_text()
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.2)
