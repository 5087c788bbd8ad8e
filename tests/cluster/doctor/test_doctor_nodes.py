"""What doctor finds on two real nodes, one of which may have another folder in the place of the storage."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cluster.doctor import checks as doctor
from cluster.doctor import probe
from cluster.local.head import free_port

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray_nodes")]
UNSHARE = ["unshare", "--mount", "--propagation", "private"]


def node(arguments: str) -> str:
    """The shell command of a node that ends with its process; its ports are not those that any other Ray tries."""
    ports = f"--min-worker-port 0 --max-worker-port 0 --dashboard-agent-listen-port {free_port(0)}"
    start = f"exec {sys.executable} -m ray.scripts.scripts start --block --num-cpus 1 --node-ip-address 127.0.0.1"
    return f"{start} {ports} {arguments}"


def look(environment: dict[str, str], storage: Path, count: int) -> list[dict[str, Any]]:
    """What the job of doctor prints once ``count`` nodes are there."""
    told, deadline, said = json.dumps({"folder": f"{storage}/.look", "uri": ""}), time.monotonic() + 180, ""
    while time.monotonic() < deadline:
        run = subprocess.run(
            [sys.executable, probe.__file__, told], env=environment, capture_output=True, text=True, check=False
        )
        assert not (storage / ".look").exists()
        said = run.stdout + run.stderr[-2000:]
        lines = [line.removeprefix(probe.MARKER) for line in run.stdout.splitlines() if line.startswith(probe.MARKER)]
        if len(lines) == count:
            return [json.loads(line) for line in lines]
        time.sleep(1)
    raise AssertionError(f"{count} nodes did not come up: {said}")


@pytest.mark.parametrize("shared", [True, False])
def test_storage_that_two_nodes_share_or_not(tmp_path: Path, shared: bool) -> None:
    if not shared and (not shutil.which("unshare") or subprocess.run([*UNSHARE, "true"], check=False).returncode):
        pytest.skip("this process may not mount")
    address = f"127.0.0.1:{free_port(0)}"
    environment = os.environ | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_ADDRESS": address,
    }
    port = address.partition(":")[2]
    head = node(f"--head --port {port} --include-dashboard false --ray-client-server-port {free_port(0)}")
    second = node(f"--address {address}")
    # Its own mounts: what this node writes there only it sees, as where a share was not mounted.
    apart = [*UNSHARE, "sh", "-c", f'mount -t tmpfs tmpfs {tmp_path} && exec sh -c "$0"', second]
    nodes: list[subprocess.Popen[bytes]] = []
    try:
        for number, command in enumerate((["sh", "-c", head], ["sh", "-c", second] if shared else apart), 1):
            nodes.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
            answers = look(environment, tmp_path, number)
    finally:
        for process in reversed(nodes):
            process.terminate()
            process.wait(60)
    checks = list(doctor.judge(answers, str(tmp_path), ""))
    assert checks[0].found == "2 looked at"
    found = [str(check) for check in checks if check.what.startswith("storage")]
    wanted = "writable and shared by 2 nodes" if shared else "mount the same shared folder (NFS, EFS, Filestore)"
    assert [wanted in line for line in found] == [True, True], found
