"""One Ray session: started here or joined, quiet, with workers that import this checkout and report their progress."""

import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError, RayError

from pipelines.config.cluster import Cluster
from pipelines.runtime.progress import _printing
from wave.errors import WaveError

ROOT = Path(__file__).resolve().parents[2]
QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "30",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it would end a run as if it were complete
}
# Of a Ray of our own. Its metrics would be served on every interface, without a token; a port that is none starts no
# server. Nobody takes its one machine away, which is what a process beside each training would watch for.
ALONE = {
    "AUTOSCALER_METRIC_PORT": "-1",
    "DASHBOARD_METRIC_PORT": "-1",
    "RAY_enable_metrics_collection": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
_REFUSED = (ConnectionError, RayError, TimeoutError, ValueError, RuntimeError)


@contextlib.contextmanager
def session(cluster: Cluster) -> Iterator[None]:
    """A Ray session for the block, shut down after it. Raises :class:`WaveError` when a cluster cannot be joined.

    Without an address Ray is started on this machine, for this process alone, without a dashboard.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.tune.execution.tune_controller").setLevel(logging.CRITICAL)  # a traceback a lost trial
    joining = bool(cluster.address or os.environ.get("RAY_ADDRESS"))
    wants_token = os.environ.get("RAY_AUTH_MODE") == "token"
    if (
        wants_token
        and not joining
        and not any(name in os.environ for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    ):
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # the head listens on all interfaces
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if cluster.address:
        options["address"] = cluster.address
    elif not joining:
        for name, value in ALONE.items():
            os.environ.setdefault(name, value)
        options |= {"address": "local", "include_dashboard": False, "num_cpus": cluster.num_cpus}
    where = cluster.address or os.environ.get("RAY_ADDRESS", "")
    _probe(where)
    try:
        with contextlib.ExitStack() as stack:
            if not os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):  # a job's workers have the job's folder
                folder = stack.enter_context(_packages())
                told = {k: v for k, v in QUIET.items() if k.startswith(("RAY_TRAIN", "RAY_AIR", "MLFLOW", "TUNE"))}
                options["runtime_env"] = {"working_dir": folder, "env_vars": told}
            ray.init(**options)
    except Exception as error:
        # A bare Exception is what Ray raises when its raylet is late; no other way to name exactly that type.
        if type(error) is not Exception and not isinstance(error, _REFUSED):
            raise
        text = (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, AuthenticationError):
            text += "; set RAY_AUTH_TOKEN to the cluster's token, or RAY_AUTH_MODE=disabled if it has none"
        raise WaveError(f"cluster.address: no Ray session on {where or 'this machine'}: {text}") from None
    signal.signal(signal.SIGTERM, interrupt)  # after Ray has set its own
    try:
        with _printing():
            yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _packages() -> Iterator[str]:
    """A folder with what workers import and nothing else that may lie in the checkout; Ray keeps a copy of its own."""
    with tempfile.TemporaryDirectory(prefix="wave-code-") as folder:
        for name in ("wave", "pipelines"):
            shutil.copytree(ROOT / name, Path(folder) / name, ignore=shutil.ignore_patterns("__pycache__"))
        yield folder


def _probe(address: str, seconds: float = 8.0) -> None:
    """Fail in seconds where Ray would try for two minutes and then end the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdecimal() or not host:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=seconds).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise WaveError(
            f"cluster.address: no Ray session on {address}: {why}; start Ray there, or leave it out to use this machine"
        ) from None


def interrupt(*_: object) -> None:
    """A handler of SIGTERM: what is done is kept, as after Ctrl-C."""
    raise KeyboardInterrupt
