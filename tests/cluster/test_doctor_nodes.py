"""What doctor finds on two real nodes, one of which may have another folder in the place of the storage."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from cluster import doctor, probe

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray_nodes")]
UNSHARE = ["unshare", "--mount", "--propagation", "private"]


def look(address: str, storage: Path) -> list[str]:
    """The lines about storage from what the job of doctor prints, once two nodes are there."""
    told = json.dumps({"folder": f"{storage}/.look", "uri": ""})
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        run = subprocess.run(
            [sys.executable, probe.__file__, told],
            env=os.environ | {"RAY_ADDRESS": address},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        assert not (storage / ".look").exists()
        said = [line.removeprefix(probe.MARKER) for line in run.stdout.splitlines() if line.startswith(probe.MARKER)]
        checks = list(doctor.judge([json.loads(line) for line in said], str(storage), ""))
        if checks[0].found == "2 looked at":
            return [str(check) for check in checks if check.what.startswith("storage")]
    raise AssertionError("the second node did not come up")


@pytest.mark.parametrize("shared", [True, False])
def test_storage_that_two_nodes_share_or_not(tmp_path: Path, shared: bool) -> None:
    if not shared and (not shutil.which("unshare") or subprocess.run([*UNSHARE, "true"], check=False).returncode):
        pytest.skip("this process may not mount")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    ray = f"exec {sys.executable} -m ray.scripts.scripts start --block --num-cpus 1 --address {cluster.address}"
    # Its own mounts: what this node writes there only it sees, as where a share was not mounted.
    start = ["sh", "-c", ray] if shared else [*UNSHARE, "sh", "-c", f"mount -t tmpfs tmpfs {tmp_path} && {ray}"]
    second = subprocess.Popen(start, stdout=subprocess.DEVNULL)
    try:
        found = look(cluster.address, tmp_path)
    finally:
        second.terminate()
        second.wait(30)
        cluster.shutdown()
    wanted = "writable and shared by 2 nodes" if shared else "mount the same shared folder (NFS, EFS, Filestore)"
    assert [wanted in line for line in found] == [True, True], found
