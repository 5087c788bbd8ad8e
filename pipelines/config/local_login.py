"""The login of the MLflow server of `up --local`: kept in a closed folder, and used for that server's address only."""

import contextlib
import json
import os
from pathlib import Path
from urllib.parse import urlsplit

FILE = "mlflow-login.json"
USER = "wave"
STATE = "WAVE_CLUSTER_STATE"
_HERE = {"127.0.0.1", "localhost", "::1"}


def state_folder() -> Path:
    """$WAVE_CLUSTER_STATE, or wave-cluster in the place for a person's state: one local cluster a person."""
    if explicit := os.environ.get(STATE):
        return Path(explicit)
    return Path(os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")) / "wave-cluster"


def save(folder: Path, url: str, password: str) -> None:
    """Note the login of the server at ``url``; only its owner can read it."""
    with open(os.open(folder / FILE, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump({"url": url, "username": USER, "password": password}, file)


def remove(folder: Path) -> None:
    """Forget the login, as its server has gone: whoever listens there next shall not get it."""
    with contextlib.suppress(OSError):
        (folder / FILE).unlink(missing_ok=True)


def log_in(uri: str) -> None:
    """Let MLflow's client in this process log in at ``uri``, if that is the local server and names no user itself."""
    try:
        given = urlsplit(uri)
        if given.scheme != "http" or given.username or given.hostname not in _HERE:
            return
        known = json.loads((state_folder() / FILE).read_text(encoding="utf-8"))
        if given.port == urlsplit(known["url"]).port:
            os.environ["MLFLOW_TRACKING_USERNAME"] = known["username"]
            os.environ["MLFLOW_TRACKING_PASSWORD"] = known["password"]
    except (OSError, ValueError, KeyError, TypeError):  # there is none, or somebody has edited it
        return
