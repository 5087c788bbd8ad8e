"""What doctor finds on two real nodes, one of which may have another folder in the place of the storage."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster import doctor, probe
from cluster.local import free_port

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray_nodes")]
UNSHARE = ["unshare", "--mount", "--propagation", "private"]


def node(*arguments: str) -> str:
    """The shell command of a node that ends with its process; its ports are not those that any other Ray tries."""
    words = (
        *arguments,
        "--num-cpus",
        "1",
        "--node-ip-address",
        "127.0.0.1",
        "--min-worker-port",
        "0",
        "--max-worker-port",
        "0",
    )
    words = (*words, "--dashboard-agent-listen-port", str(free_port(0)))
    return f"exec {sys.executable} -m ray.scripts.scripts start --block {' '.join(words)}"


def look(environment: dict[str, str], storage: Path) -> list[str]:
    """The lines about storage from what the job of doctor prints, once two nodes are there."""
    told = json.dumps({"folder": f"{storage}/.look", "uri": ""})
    deadline = time.monotonic() + 180
    said = ""
    while time.monotonic() < deadline:
        run = subprocess.run(
            [sys.executable, probe.__file__, told], env=environment, capture_output=True, text=True, check=False
        )
        assert not (storage / ".look").exists()
        said = run.stdout + run.stderr[-2000:]
        lines = [line.removeprefix(probe.MARKER) for line in run.stdout.splitlines() if line.startswith(probe.MARKER)]
        checks = list(doctor.judge([json.loads(line) for line in lines], str(storage), ""))
        if checks[0].found == "2 looked at":
            return [str(check) for check in checks if check.what.startswith("storage")]
        time.sleep(1)
    raise AssertionError(f"the second node did not come up: {said}")


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
    client = ("--ray-client-server-port", str(free_port(0)))
    head = node("--head", "--port", address.partition(":")[2], "--include-dashboard", "false", *client)
    second = node("--address", address)
    # Its own mounts: what this node writes there only it sees, as where a share was not mounted.
    apart = [] if shared else [*UNSHARE, "sh", "-c", f'mount -t tmpfs tmpfs {tmp_path} && exec sh -c "$0"']
    nodes: list[subprocess.Popen[bytes]] = []
    try:
        nodes.append(subprocess.Popen(["sh", "-c", head], env=environment, stdout=subprocess.DEVNULL))
        while not look_once(environment):
            assert nodes[0].poll() is None
        nodes.append(subprocess.Popen([*(apart or ["sh", "-c"]), second], env=environment, stdout=subprocess.DEVNULL))
        found = look(environment, tmp_path)
    finally:
        for process in reversed(nodes):
            process.terminate()
            process.wait(60)
    wanted = "writable and shared by 2 nodes" if shared else "mount the same shared folder (NFS, EFS, Filestore)"
    assert [wanted in line for line in found] == [True, True], found


def look_once(environment: dict[str, str]) -> bool:
    """Whether the head answers."""
    command = [sys.executable, probe.__file__, json.dumps({"folder": "", "uri": ""})]
    return probe.MARKER in subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout
