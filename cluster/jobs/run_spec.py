"""What a run is: a TOML file, its overrides and the name that follows from both.

Every relative path of a run is resolved against the folder where the command runs. In a Ray job that folder is a
temporary copy that vanishes with the cluster, so `submit` anchors each one in a storage folder that every node sees:
`--set output=STORAGE/runs/NAME`, `--set data.path=STORAGE/...` and so on, at the end of the job's command line.
Absolute paths stay as they are, and URIs are no folders. For a cluster on this machine the storage is the folder where
`submit` runs, so a job writes where the same command without a cluster would have.
"""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import SplitResult, urlsplit

from cluster.errors import ClusterError

_PATHS = ("data.path", "data.source")
_PREFIXES = ("local-dir:", "checkpoint:")
_JOINED = "cluster.address=auto"


@dataclass(frozen=True)
class Run:
    """One run, as `pipelines` reads it: `tree` is the file with the overrides applied, `overrides` those overrides as
    they were given; `name`, `output` and `model` (the registered one) are what the run would use."""

    file: Path
    name: str
    overrides: tuple[str, ...]
    tree: dict[str, Any]
    output: str
    model: str

    def id(self, output: str) -> str:
        """Name and a digest of settings and output folder: the same settings give the same id, however written."""
        text = json.dumps([self.tree, output], sort_keys=True, default=str)
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"

    def get(self, key: str) -> Any:
        """The value at the dotted `key`, None when absent."""
        value: Any = self.tree
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value


def load(file: Path, overrides: tuple[str, ...] = (), root: Path = Path()) -> Run:
    """What a run of `file` is, by the code in `root` that would run it. Raises ClusterError with what that refuses.

    In a process of its own: the parser and its checks need libraries that take seconds to load, and no other command.
    """
    command = [sys.executable, "-P", "-m", "pipelines.config", str(file), *overrides, _JOINED]
    paths = [str(root.resolve()), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUTF8": "1"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=False)
        found = json.loads(done.stdout) if done.returncode == 0 else None
    except (OSError, ValueError) as error:  # a list of settings too long for the system, a NUL, no JSON
        raise ClusterError(f"{file} cannot be checked: {error}") from None
    if found is None:
        said = (done.stderr.strip().splitlines() or [f"the check ended with code {done.returncode}"])[-1]
        raise ClusterError(said if done.returncode == 2 else f"{file} cannot be checked: {said}")
    _check_secrets(found["settings"])
    return Run(file, found["name"], overrides, found["settings"], found["output"], found["registered_model"])


def anchored(run: Run, storage: str) -> list[str]:
    """The overrides that put every relative path of `run` below `storage`, an absolute folder or empty.

    Raises ClusterError when a path needs a storage folder and there is none, or when it would leave that folder.
    """
    found = [("output", "", run.output)]
    found += [(key, "", value) for key in _PATHS if isinstance(value := run.get(key), str) and value]
    source = run.get("ancestor.source")
    for prefix in _PREFIXES:
        if isinstance(source, str) and source.startswith(prefix):
            found.append(("ancestor.source", prefix, source.removeprefix(prefix)))
    return [
        f"{key}={json.dumps(prefix + _below(key, path, storage))}" for key, prefix, path in found if not _anywhere(path)
    ]


def command(file: str, run: Run, storage: str, tracking_uri: str) -> str:
    """The job's command line for `run`, whose file is called `file` there; see `anchored` for what it raises."""
    settings = [*run.overrides, *anchored(run, storage), f"mlflow.tracking_uri={tracking_uri}", _JOINED]
    return shlex.join(["python", "-m", "pipelines", "run", file, *(p for s in settings for p in ("--set", s))])


def output(run: Run, storage: str) -> str:
    """The absolute folder that `run` writes to; two runs must not share it at one time."""
    return os.path.expanduser(run.output) if _anywhere(run.output) else _below("output", run.output, storage)


def _anywhere(path: str) -> bool:
    """Whether a path says itself where it begins: at the root, or at the home of who runs the job."""
    return path.startswith(("/", "~"))


def _below(key: str, path: str, storage: str) -> str:
    if "://" in path:
        raise ClusterError(
            f"{key} = {path!r:.80} is a URI; give a folder that every node sees, as a bucket is when it is mounted"
        )
    if not storage:
        raise ClusterError(
            f'{key} = "{path}" is relative, and a job runs in a copy that vanishes; give --storage DIR, '
            "an absolute folder that every node sees"
        )
    if "\0" in path or ".." in PurePosixPath(path).parts:
        raise ClusterError(f"{key} = {path!r} leaves the storage folder {storage}; write it as an absolute path")
    return str(PurePosixPath(storage) / path)


def check_storage(storage: str) -> str:
    """`storage` unchanged when it is an absolute path of the cluster's machines, or empty. Raises ClusterError."""
    if storage and ("\0" in storage or not PurePosixPath(storage).is_absolute()):
        raise ClusterError(f"--storage {storage!r} must be an absolute folder, the same on every node, as in /mnt/wave")
    return storage


def tracking(run: Run, given: str, local: str) -> str:
    """The MLflow address for `run`: `given` (--mlflow), the file's, `local` (of `up --local`) or $MLFLOW_TRACKING_URI.

    Raises ClusterError for none, for a store that the nodes cannot share, and for a password in the address.
    """
    uri = given or run.get("mlflow.tracking_uri") or local or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not isinstance(uri, str) or not uri:
        raise ClusterError(
            "this cluster's MLflow server is not known: give --mlflow http://HOST:PORT or set MLFLOW_TRACKING_URI"
        )
    return check_server(uri)


def check_server(uri: str) -> str:
    """An MLflow server's address as a job may be told it. Raises ClusterError for a password in it, and for none."""
    parts = _parts(uri)
    if _secret(uri):
        raise ClusterError(
            "the MLflow address holds a password, which the job's command line would show; "
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment of the nodes"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        shown = uri.partition(":")[0] if parts.scheme else uri
        raise ClusterError(
            f"MLflow at {shown[:80]!r} is not a server that nodes can share; give --mlflow http://HOST:PORT"
        )
    return uri


def _secret(text: str) -> bool:
    """Whether a text is an address with a user before its host or a secret among its parameters."""
    pattern = r"(^|//)[^/?\s]*@|[?&][^=&]*(pass|pwd|token|secret)[^=&]*="
    return bool(re.search(pattern, text, re.IGNORECASE))


def _check_secrets(value: Any, key: str = "") -> None:
    """Raise ClusterError for an address with a password anywhere: the job's log and upload would show it."""
    if isinstance(value, dict):
        for name, part in value.items():
            _check_secrets(part, f"{key}.{name}".lstrip("."))
    elif isinstance(value, list):
        for part in value:
            _check_secrets(part, key)
    elif isinstance(value, str) and "://" in value and _secret(value):
        raise ClusterError(
            f"{key} holds a password, which the job's command line, log or upload would show; leave it out there and "
            "give it to the nodes in their environment"
        )


def _parts(uri: str) -> SplitResult:
    try:
        parts = urlsplit(uri)
        _ = parts.port  # a number up to 65535, or a ValueError
        return parts
    except ValueError as error:
        raise ClusterError(f"the MLflow address {uri!r:.80} is none: {error}; give --mlflow http://HOST:PORT") from None
