"""The whole path on a real head: up, doctor, submit, follow, leave, come back, stop, down."""

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from cluster.errors import ClusterError
from cluster.jobs.client import Jobs
from cluster.jobs.target import Target
from cluster.local import head as local
from cluster.local import processes, state
from pipelines.config import local_login
from pipelines.registry.store import open_store
from tests.cluster.miniature import DESCRIBED, DRIVER, RUN, Here, rays_own_addresses
from tests.other_user import as_other_user, needs_root, reached, written

ROOT = Path(__file__).parents[3]
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("local_cluster")]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    folder = tmp_path_factory.mktemp("checkout")
    files = {"wave/__init__.py": "OURS = True", "pipelines/__main__.py": RUN, "x.toml": 'name = "x"'}
    packages = dict.fromkeys(("pipelines/__init__.py", "pipelines/config/__init__.py"), "")  # before those of the path
    for name, text in {**files, **packages, "pipelines/config/__main__.py": DESCRIBED}.items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(text)
    notes = tmp_path_factory.mktemp("state")
    recorded = local.up(notes, num_cpus=1)
    roots = {service.pid: service.since for service in recorded.services.values()}
    stranger = subprocess.Popen(["sleep", "600"])
    try:
        yield Here(folder, notes, recorded)
    finally:
        ended = local.down(notes)
        alive = stranger.poll() is None
        stranger.kill()
        stranger.wait()
    assert ended > 5
    assert alive, "down ended a process that it had not started"
    assert processes.family(recorded.mark, roots) == set()
    assert not Path(recorded.scratch).exists()
    assert local.down(notes) == 0
    assert sorted(path.name for path in notes.iterdir()) == ["lock", "mlflow", "mlflow.log", "ray.log"]


def test_a_second_up_starts_nothing(here: Here) -> None:
    assert local.up(here.state) == here.recorded
    token = state.token_file(here.state)
    assert token.stat().st_mode & 0o077 == 0
    token.rename(token.with_name("aside"))
    with pytest.raises(ClusterError, match="token is gone"):
        local.up(here.state)
    token.with_name("aside").rename(token)
    assert here.recorded.services["ray"].alive()


@needs_root
def test_another_user_reaches_no_file_of_the_cluster(here: Here) -> None:
    """Token, logs, registry, Ray's folder with the code of jobs, and whatever else its processes write."""
    family = processes.family(here.recorded.mark, {s.pid: s.since for s in here.recorded.services.values()})
    scratch = Path(here.recorded.scratch)
    ours = {here.state, scratch, *here.state.rglob("*"), *scratch.rglob("*")}
    assert {state.token_file(here.state), here.state / "mlflow/mlflow.db", scratch / "r"} < ours
    assert reached(ours | written(p.pid for p in family)) == []
    secrets = [f"/proc/{process.pid}/environ" for process in family]
    assert as_other_user(lambda: [name for name in secrets if os.access(name, os.R_OK)]) == []


def test_the_state_folder_must_be_closed(here: Here, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    with pytest.raises(ClusterError, match=r"open to other users \(mode 755\).*chmod 700"):
        local.up(tmp_path / "open")
    assert list((tmp_path / "open").iterdir()) == []


def test_mlflow_wants_a_password_that_only_our_commands_find(here: Here, tmp_path: Path) -> None:
    server = here.recorded.services["mlflow"].url
    password = json.loads((here.state / "mlflow-login.json").read_text())["password"]
    search = f"{server}/api/2.0/mlflow/registered-models/search"

    def status(path: str, user: str = "") -> int:
        headers = {"Authorization": "Basic " + base64.b64encode(user.encode()).decode()} if user else {}
        try:
            return urllib.request.urlopen(urllib.request.Request(path, headers=headers), timeout=30).status
        except urllib.error.HTTPError as error:
            return error.code

    assert [status(search, user) for user in ("", "wave:", "wave:wrong", "admin:password", "admin:password1234")] == [
        401
    ] * 5
    artifacts = f"{server}/api/2.0/mlflow-artifacts/artifacts"
    assert [status(f"{server}{page}") for page in ("/", "/api/2.0/mlflow/users/current")] == [401] * 2
    assert status(artifacts) == 401
    assert status(search, f"wave:{password}") == 200
    given = {
        "WAVE_CLUSTER_STATE": str(here.state),
        "MLFLOW_TRACKING_USERNAME": "mine",
        "MLFLOW_TRACKING_PASSWORD": "for another",
    }
    with mock.patch.dict(os.environ, given):
        opened = open_store(server.replace("127.0.0.1", "localhost"), "x", tmp_path)
        assert opened.client().get_experiment(opened.experiment_id).name == "x"
    with mock.patch.dict(os.environ, given):
        local_login.log_in(server.replace("http://", "http://me:own@"))
        local_login.log_in("http://127.0.0.1:9")
        local_login.log_in(server.replace("127.0.0.1", "example.org"))
        assert os.environ["MLFLOW_TRACKING_USERNAME"] == "mine"
    shown = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in processes.table()]
    assert not [line for line in shown if password.encode() in line or here.token.encode() in line]
    jobs = [repr(job) for job in Jobs(Target(here.address, here.token)).list()]
    assert not [job for job in jobs if password in job]
    assert password not in "".join(log.read_text(errors="replace") for log in here.state.glob("*.log"))


def test_dashboard_and_mlflow_listen_on_loopback_only(here: Here) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.254", 9))  # sends nothing; tells which address this machine would use
        except OSError:
            pytest.skip("this machine has no address but loopback")
        outside = probe.getsockname()[0]
    for service in here.recorded.services.values():
        port = int(service.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((outside, port), timeout=5)


def open_files(pid: int) -> list[str]:
    try:
        return [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:  # it has ended
        return []


def test_no_metrics_are_served(here: Here) -> None:
    """Ray's fixed ports for the metrics of the autoscaler and of the dashboard, on no interface and without a token."""
    ours = processes.family(here.recorded.mark, {s.pid: s.since for s in here.recorded.services.values()})
    sockets = {link for process in ours for link in open_files(process.pid)}
    ports: set[int] = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:  # 0A is LISTEN
                ports.add(int(fields[1].rpartition(":")[2], 16))
    assert len(ports) > 5
    assert not ports & {44217, 44227}


@pytest.mark.parametrize("token", ["", "wrong", "x" * 64])
def test_nothing_without_the_token(here: Here, token: str) -> None:
    submission = json.dumps({"entrypoint": "touch /tmp/never", "submission_id": "intruder"}).encode()
    for path, body in (
        ("/api/jobs/", submission),
        ("/api/jobs/", None),
        ("/api/jobs/x/logs", None),
        ("/api/packages/gcs/_ray_pkg_0.zip", None),
    ):
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(here.address + path, body, headers), timeout=10)
        assert refused.value.code == (403 if token else 401)
    with pytest.raises(ClusterError, match="its token is wrong" if token else "it wants a token"):
        Jobs(Target(here.address, token))
    assert all(job.submission_id != "intruder" for job in Jobs(Target(here.address, here.token)).list())


def test_a_driver_runs_nothing_without_the_token(here: Here) -> None:
    addresses = rays_own_addresses(here)
    assert [address.startswith("ray://") for address in addresses] == [False, True]
    # Those that may run go alone: Ray gives a client a fixed time to connect.
    refused = [(address, token) for token in ("wrong" * 8, "") for address in addresses]
    for group in ([(addresses[0], here.token)], [(addresses[1], here.token)], refused):
        drivers = [driver(here, address, token) for address, token in group]
        for (address, token), process in zip(group, drivers, strict=True):
            out, err = process.communicate(timeout=400)
            assert ("it ran" in out) == (token == here.token), (address, token, err[-2000:])
            assert (process.returncode == 0) == (token == here.token)


def driver(here: Here, address: str, token: str) -> "subprocess.Popen[str]":
    """A program that joins the cluster at ``address`` and runs a task there."""
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, address],
        env=here.environment | secret,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_commands_without_the_token_are_one_line(here: Here) -> None:
    elsewhere = str(here.state / "none")
    for command in (["logs"], ["submit", "x.toml", "--storage", "/tmp", "--mlflow", "http://127.0.0.1:9"]):
        refused = here.run(*command, "--address", here.address, "--state", elsewhere, RAY_AUTH_TOKEN="wrong")
        assert refused.returncode == 2
        assert refused.stderr.count("\n") == 1
        assert "its token is wrong" in refused.stderr


def test_follow_passes_the_exit_code_and_the_same_run_continues(here: Here) -> None:
    submit = ("submit", "x.toml", "--follow", "--set", "steps=4", "--set", "fail=7")
    first = here.run(*submit)
    assert first.returncode == 7, first.stdout + first.stderr
    assert re.findall(r"^step \d", first.stdout, re.M) == ["step 0", "step 1"]
    for word in ("upload ", " in 6 files", f"{here.address}/#/jobs/x-", here.recorded.services["mlflow"].url):
        assert word in first.stdout
    again = here.run(*submit)
    assert again.returncode == 0, again.stdout + again.stderr
    assert re.findall(r"^step \d", again.stdout, re.M) == ["step 2", "step 3"]
    assert "it continues the run" in again.stdout
    assert (here.folder / "runs/x/count").read_text() == "4"
    assert here.token not in first.stdout + first.stderr + again.stdout
    listed = here.run("list").stdout
    assert re.search(r"^x-\w{10}  FAILED \(exit code 7\)", listed, re.M)
    assert re.search(r"^x-\w{10}-2  SUCCEEDED .* try 2", listed, re.M)


def test_ctrl_c_leaves_the_job_running_and_says_how_to_come_back(here: Here) -> None:
    submit = ("submit", "x.toml", "--set", "steps=1000", "--set", "pause=0.2", "--set", "output=long")
    follower = subprocess.Popen(
        here.command(*submit, "--follow"),
        cwd=here.folder,
        env=here.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run started in the background of a shell would hand down a SIGINT that is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )
    assert follower.stdout
    assert any(line.startswith("step 3") for line in follower.stdout)
    follower.send_signal(signal.SIGINT)
    _, errors = follower.communicate(timeout=30)
    assert follower.returncode == 130
    back = re.search(r"python -m cluster (logs x-\w{10}) --state \S+ --follow", errors)
    assert back, errors
    job = back[1].partition(" ")[2]

    jobs = Jobs(Target(here.address, here.token))
    assert jobs.info(job).status.value == "RUNNING"
    attached = here.run(*submit, "--mlflow", "http://127.0.0.1:9")
    assert attached.returncode == 0
    assert f"{job} (runs already" in attached.stdout
    assert f"MLflow     {here.recorded.services['mlflow'].url}" in attached.stdout  # the one that the job has
    other = here.run(*submit, "--set", "seed=1")
    assert other.returncode == 2
    assert "with other settings writes to" in other.stderr
    stopped = here.run("stop", job)
    assert "STOPPED" in stopped.stdout
    assert here.run("logs", job).stdout.endswith("saved\n")
    assert here.run("status", "x").stdout.startswith(job)


def test_doctor_finds_the_cluster_in_order_and_names_what_is_not(here: Here) -> None:
    proxy = "http://127.0.0.1:9"  # none: what is on this machine needs none
    well = here.run("doctor", http_proxy=proxy, HTTP_PROXY=proxy)
    assert well.returncode == 0, well.stdout + well.stderr
    lines = well.stdout.splitlines()
    assert len(lines) == 9
    assert all(line.startswith("ok ") for line in lines)
    ill = here.run("doctor", "--mlflow", "http://127.0.0.1:9", "--storage", str(here.folder / "no" / "such"))
    assert not (here.folder / "no").exists()
    assert ill.returncode == 1
    assert len([line for line in ill.stdout.splitlines() if line.startswith("FAIL") and "Fix: " in line]) == 2
    assert not list(here.folder.glob(".wave-doctor*"))


def test_a_killed_mlflow_server_comes_back_with_up(here: Here) -> None:
    old = here.recorded.services["mlflow"]
    os.kill(old.pid, signal.SIGKILL)
    while old.alive():
        time.sleep(0.1)
    here.recorded = local.up(here.state)
    assert here.recorded.services["mlflow"].pid != old.pid
    assert here.recorded.services["ray"].alive()
