"""One Ray session: started here or joined, quiet, with workers that import this checkout and report their progress."""

import contextlib
import logging
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import AuthenticationError, RayError

from pipelines.config import session_folder
from pipelines.config.cluster import Cluster
from pipelines.config.machine import cpus
from pipelines.config.session_folder import SessionFolder
from pipelines.runtime import signals
from pipelines.runtime.console import say
from pipelines.runtime.progress import printing
from pipelines.runtime.ray_address import reachable, shown
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
_REFUSED = (ConnectionError, RayError, TimeoutError, ValueError, RuntimeError, OSError)


@contextlib.contextmanager
def session(cluster: Cluster) -> Iterator[None]:
    """A Ray session for the block, shut down after it. Raises :class:`WaveError` when a cluster cannot be joined.

    Without an address Ray is started on this machine, for this process alone, without a dashboard.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.tune.execution.tune_controller").setLevel(logging.CRITICAL)  # a traceback a lost trial
    where, source = reachable(cluster)
    if where:
        say(f"Ray: {shown(where)} ({source})")
    with contextlib.ExitStack() as stack:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
        if where:
            options["address"] = where
        else:
            options |= {"address": "local", "include_dashboard": False, "num_cpus": cluster.num_cpus or cpus()}
            _alone()
        if not (where and os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR")):  # a job's workers have the job's folder
            options |= _private(stack.enter_context(_folder()), alone=not where)
        signals.spare_children()
        try:
            _start(where, source, options)
        finally:
            signals.catch()  # after Ray has set its own
        stack.callback(ray.shutdown)
        stack.enter_context(printing())
        yield


def _alone() -> None:
    for name, value in ALONE.items():
        os.environ.setdefault(name, value)
    given = any(name in os.environ for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if os.environ.get("RAY_AUTH_MODE") == "token" and not given:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # the head listens on all interfaces


@contextlib.contextmanager
def _folder() -> Iterator[SessionFolder]:
    try:
        folder = session_folder.make()
    except OSError as error:
        raise WaveError(f"no folder for Ray's files: {error}") from None
    try:
        yield folder
    finally:
        folder.remove()


def _private(folder: SessionFolder, *, alone: bool) -> dict[str, Any]:
    """Ray's options for what workers import, and nothing else that may lie in the checkout; Ray copies it at once."""
    for name in ("wave", "pipelines"):
        shutil.copytree(ROOT / name, folder.code / name, ignore=shutil.ignore_patterns("__pycache__"))
    told = {k: v for k, v in QUIET.items() if k.startswith(("RAY_TRAIN", "RAY_AIR", "MLFLOW", "TUNE"))}
    environment: dict[str, Any] = {"working_dir": str(folder.code), "env_vars": told}
    if not alone:
        return {"runtime_env": environment}
    try:
        python = folder.interpreter(sys.executable, sys.prefix)
    except OSError as error:
        raise WaveError(str(error)) from None
    if python != sys.executable:
        environment["py_executable"] = python
    return {"runtime_env": environment, "_temp_dir": folder.ray}


def _start(where: str, source: str, options: dict[str, Any]) -> None:
    try:
        ray.init(**options)
    except Exception as error:
        # A bare Exception is what Ray raises when its raylet is late; no other way to name exactly that type.
        if type(error) is not Exception and not isinstance(error, _REFUSED):
            raise
        text = (str(error).splitlines() or [type(error).__name__])[0]
        if isinstance(error, AuthenticationError):
            text += "; set RAY_AUTH_TOKEN to the cluster's token, or RAY_AUTH_MODE=disabled if it has none"
        raise WaveError(f"{source}: no Ray session on {shown(where) or 'this machine'}: {text}") from None
