"""What `doctor` runs on the cluster: it looks round on every node and prints one JSON line a node.

A file of its own that imports nothing of ours: it is the whole upload, and must run where much is wrong.
"""

import base64
import configparser
import contextlib
import http.client
import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from importlib import metadata
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

MARKER = "WAVE-DOCTOR "
PACKAGES = ("ray", "torch", "torchvision", "timm", "mlflow", "pyarrow", "pydantic", "safetensors")
NODE_SECONDS = 120.0


def versions() -> dict[str, str]:
    """Installed versions, "" for a package that is missing."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = ""
    return found


def gpus() -> int:
    """How many GPUs the driver shows, which may differ from what Ray was told."""
    if not shutil.which("nvidia-smi"):
        return 0
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return sum(line.startswith("GPU ") for line in listing.stdout.splitlines())


def write(folder: str, name: str) -> str:
    """Write `name` below `folder`: "" or what went wrong."""
    if not folder:
        return ""
    try:
        Path(folder).mkdir(exist_ok=True)  # not its parents: storage that is not there is not storage
        (Path(folder) / name).write_text(name)
    except OSError as error:
        return f"{error.strerror or error}"
    return ""


def credentials(uri: str) -> str:
    """USER:PASSWORD of this node for `uri`: what `up --local` noted for its server, else where MLflow's client looks:
    the environment, then ~/.mlflow/credentials; or ""."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        noted = json.loads(Path(os.environ["WAVE_CLUSTER_STATE"], "mlflow-login.json").read_text())
        if noted["url"] == uri.rstrip("/"):
            return f"{noted['username']}:{noted['password']}"
    file = configparser.ConfigParser(interpolation=None)
    file.read(Path(os.path.expanduser("~")) / ".mlflow" / "credentials")
    user, password = (
        os.environ.get(name.upper()) or file.get("mlflow", name, fallback="")
        for name in ("mlflow_tracking_username", "mlflow_tracking_password")
    )
    return f"{user}:{password}" if user else ""


def mlflow(uri: str) -> tuple[str, str]:
    """The server's version and "" or what went wrong, from this node, with this node's credentials."""
    headers = {"Content-Type": "application/json"}
    if pair := credentials(uri):
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    version = ""
    # The version answers to any Host header; a search shows whether the host and the credentials are accepted.
    for path, body in (("/version", None), ("/api/2.0/mlflow/experiments/search", b'{"max_results": 1}')):
        try:
            with urllib.request.urlopen(urllib.request.Request(uri + path, body, headers), timeout=15) as reply:
                text = reply.read().decode(errors="replace")
        except urllib.error.HTTPError as error:
            return version, f"HTTP {error.code} for {path}: {error.read(80).decode(errors='replace')}"
        except (OSError, ValueError, http.client.HTTPException) as error:
            return version, str(getattr(error, "reason", error)).strip()[:80] or type(error).__name__
        version = version or text.strip()
        if not re.fullmatch(r"[0-9]+(\.[0-9A-Za-z]+)+", version):
            return "", "what answers there is no MLflow server"
    return version, ""


def look(node: str, folder: str, uri: str) -> dict[str, Any]:
    """Everything about the node where this runs."""
    version, trouble = mlflow(uri) if uri else ("", "")
    return {
        "host": socket.gethostname(),
        "versions": versions(),
        "gpus": gpus(),
        "write": write(folder, node),
        "mlflow": version,
        "mlflow_error": trouble,
    }


def see(folder: str) -> list[str]:
    """The names that this node sees in `folder`. Opening it first makes an NFS client ask its server again."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries)
    except OSError:
        return []


def main(folder: str, uri: str) -> None:
    """Ask every living node and print what it says; the folder is removed at the end."""
    ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}

    def everywhere(function: Any, arguments: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
        task = ray.remote(num_cpus=0, max_retries=0)(function)
        calls = {
            node: task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(*given)
            for node, given in arguments.items()
        }
        ray.wait(list(calls.values()), num_returns=len(calls), timeout=NODE_SECONDS)
        answers: dict[str, Any] = {}
        for node, call in calls.items():
            try:
                answers[node] = ray.get(call, timeout=1)
            except (RayError, TimeoutError) as error:
                answers[node] = {
                    "error": str(error).strip().splitlines()[-1][:200] if str(error).strip() else "no answer"
                }
        return answers

    looked = everywhere(look, {node: (node, folder, uri) for node in nodes})
    seen = everywhere(see, dict.fromkeys(nodes, (folder,))) if folder else {}
    for node, found in looked.items():
        sees = seen.get(node, [])
        unseen = sorted(set(nodes) - set(sees)) if isinstance(sees, list) else sorted(nodes)
        found["node"], found["address"] = node, nodes[node]["NodeManagerAddress"]
        found["head"] = "node:__internal_head__" in nodes[node]["Resources"]
        found["ray_gpus"] = nodes[node]["Resources"].get("GPU", 0)
        found["unseen"] = [nodes[other]["NodeManagerAddress"] for other in unseen] if folder else []
        print(MARKER + json.dumps(found))
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
