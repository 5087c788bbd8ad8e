"""A Ray head with a token and an MLflow server on this machine, for trying the cluster path without a cluster.

The dashboard (Jobs) and MLflow listen on 127.0.0.1 only. Ray's own ports (GCS, raylet) listen on every interface
whatever address one gives, which is why the token is on. `ray start --block` stays as the parent of everything that Ray
starts, so `down` ends exactly our processes; `ray stop` would end every Ray process of the machine.
"""

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

from cluster.errors import ClusterError
from cluster.local import processes
from cluster.local.state import VARIABLES, Service, State, load, locked, save, token_file
from pipelines.config import local_login, proxies, session_folder

HOST = "127.0.0.1"
START_SECONDS = 180.0
_USERS = "users.db"
# A password is checked by 0.1 s of arithmetic, so once an hour is enough; the path is relative to the server's folder.
_AUTH = f"""[mlflow]
default_permission = NO_PERMISSIONS
database_uri = sqlite:///{_USERS}
auth_cache_ttl_seconds = 3600
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
"""
_DROPPED = {*VARIABLES, "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "MLFLOW_TRACKING_URI"}
"""What is about another cluster in the environment of whoever says `up`."""


def free_port(preferred: int) -> int:
    """`preferred` when nobody listens there, else one that the system chooses."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                # On every interface: Ray's GCS binds there, and a listener on one interface is in its way too.
                probe.bind(("", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise ClusterError("no free TCP port on this machine; close some servers")


def _start(
    command: list[str], log: Path, url: str, environment: dict[str, str], *holds: int, cwd: Path | None = None
) -> Service:
    """Start `command` in a session of its own, so that Ctrl-C in this terminal does not reach it.

    It `holds` these open files, and thereby their locks, as long as it lives.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
            pass_fds=holds,
            cwd=cwd,
        )
    return Service(process.pid, processes.started(process.pid) or "", url)


def _head(folder: Path, state: State, environment: dict[str, str], num_cpus: int | None) -> Service:
    token = token_file(folder)
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    # Metrics would be served to all, without the token; a port that is none keeps these two servers from starting.
    environment |= {"RAY_enable_metrics_collection": "0", "AUTOSCALER_METRIC_PORT": "-1", "DASHBOARD_METRIC_PORT": "-1"}
    scratch = session_folder.make()
    state.scratch = str(scratch.path)
    try:
        python = scratch.interpreter(sys.executable, sys.prefix)
        # A job says `python`: it shall be the one that has Ray, whether or not its environment was activated here.
        environment["PATH"] = os.pathsep.join([str(Path(python).parent), environment.get("PATH", os.defpath)])
        dashboard = free_port(8265)
        command = [python, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats"]
        command += ["--node-ip-address", HOST, "--dashboard-host", HOST, "--dashboard-port", str(dashboard)]
        command += ["--port", str(free_port(6379)), "--ray-client-server-port", str(free_port(10001))]
        # Not 52365, which every Ray that starts on this machine tries first: an agent without its port takes no jobs.
        command += ["--dashboard-agent-listen-port", str(free_port(0)), "--temp-dir", scratch.ray]
        # Ports for workers chosen by the system: two Ray clusters on one machine would try the same range otherwise.
        command += ["--min-worker-port", "0", "--max-worker-port", "0"]
        command += ["--num-cpus", str(num_cpus)] if num_cpus is not None else []
        return _start(command, folder / "ray.log", f"http://{HOST}:{dashboard}", environment, scratch.lock)
    finally:
        os.close(scratch.lock)


def _mlflow(folder: Path, environment: dict[str, str]) -> Service:
    store = folder / "mlflow"
    (store / "artifacts").mkdir(parents=True, exist_ok=True)
    port = free_port(5000)
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--app-name", "basic-auth"]
    command += ["--backend-store-uri", f"sqlite:///{store / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(store / "artifacts")]
    # The job runner of MLflow is not used here and takes 1.3 GB of memory.
    environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | _accounts(folder, store, port)
    return _start(command, folder / "mlflow.log", f"http://{HOST}:{port}", environment, cwd=store)


def _accounts(folder: Path, store: Path, port: int) -> dict[str, str]:
    """What lets the server know one user, with a new password: other users of this machine reach its port too."""
    password = secrets.token_urlsafe(24)
    (store / _USERS).unlink(missing_ok=True)
    (store / "auth.ini").write_text(_AUTH)
    local_login.save(folder, f"http://{HOST}:{port}", password)
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(store / "auth.ini"),
        "MLFLOW_AUTH_ADMIN_USERNAME": local_login.USER,
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
    }


def _answers(url: str, token: str) -> bool:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5) as reply:
            return reply.status == 200
    except (OSError, urllib.error.URLError):
        return False


def _wait(name: str, service: Service, path: str, token: str, log: Path, deadline: float) -> None:
    while not _answers(service.url + path, token):
        if not service.alive():
            last = (log.read_text(errors="replace").strip().splitlines() or ["nothing in its log"])[-1]
            raise ClusterError(f"{name} ended at once: {last} (whole log: {log})")
        if time.monotonic() > deadline:
            raise ClusterError(f"{name} did not answer at {service.url} within {START_SECONDS:.0f} s (log: {log})")
        time.sleep(0.3)


def up(folder: Path, num_cpus: int | None = None) -> State:
    """Start what is not running yet and return the state; a second call starts nothing. Takes about 15 s.

    `folder` keeps the state, the token, the logs and MLflow's store, which stays when the cluster goes. Raises
    ClusterError when a server does not come up; everything that was started is ended again.
    """
    folder = folder.absolute()
    if find_spec("flask_wtf") is None:
        raise ClusterError("MLflow's logins need more packages: pip install -c constraints.txt 'mlflow[auth]'")
    with locked(folder):
        state = load(folder)
        if not any(service.alive() for service in state.services.values()):
            _clear(folder, state)
            state = State(secrets.token_hex(8))
        elif _up(state, "ray") and not token_file(folder).is_file():
            raise ClusterError(
                f"{token_file(folder)} is gone, and with it the way to the cluster that runs; end it by `down --local`"
            )
        environment = {k: v for k, v in os.environ.items() if k not in _DROPPED} | {processes.MARK: state.mark}
        environment[local_login.STATE] = str(folder)  # where a job finds MLflow's login
        proxies.bypass(environment)
        try:
            if not _up(state, "mlflow"):
                state.services["mlflow"] = _mlflow(folder, dict(environment))
                save(folder, state)
            if not _up(state, "ray"):
                _forget(state)
                state.services["ray"] = _head(folder, state, dict(environment), num_cpus)
                save(folder, state)
            deadline = time.monotonic() + START_SECONDS
            token = token_file(folder).read_text()
            _wait("Ray", state.services["ray"], "/api/jobs/", token, folder / "ray.log", deadline)
            _wait("MLflow", state.services["mlflow"], "/health", "", folder / "mlflow.log", deadline)
        except (ClusterError, KeyboardInterrupt):
            _clear(folder, state)
            raise
        except OSError as error:
            _clear(folder, state)
            where = f"{error.filename or folder}: {error.strerror}; move it, or give another --state"
            raise ClusterError(where if error.strerror else str(error)) from None
        return state


def _up(state: State, name: str) -> bool:
    return name in state.services and state.services[name].alive()


def _forget(state: State) -> None:
    if state.scratch:
        session_folder.remove(Path(state.scratch))
        state.scratch = ""


def _clear(folder: Path, state: State) -> int:
    roots = {service.pid: service.since for service in state.services.values()}
    count = len(processes.family(state.mark, roots))
    if left := processes.end(state.mark, roots):
        pids = ", ".join(str(process.pid) for process in sorted(left, key=lambda p: p.pid))
        raise ClusterError(f"processes {pids} do not end; they may belong to another user")
    _forget(state)
    local_login.remove(folder)
    with contextlib.suppress(OSError):  # a folder that is in its place is not ours
        token_file(folder).unlink(missing_ok=True)
    (folder / "state.json").unlink(missing_ok=True)
    return count


def down(folder: Path) -> int:
    """End every process that `up` and its jobs started; returns how many. MLflow's store and the logs stay."""
    folder = folder.absolute()
    with locked(folder):
        return _clear(folder, load(folder))
