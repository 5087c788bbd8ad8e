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
import tomllib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import SplitResult, urlsplit

from cluster.errors import ClusterError

# Keys whose value is a path, with the default for a file that does not name one (None: then no path is used).
_PATHS: tuple[tuple[str, str | None], ...] = (("output", "runs/{name}"), ("data.path", None), ("data.source", None))
_PREFIXES = ("local-dir:", "checkpoint:")


@dataclass(frozen=True)
class Run:
    """One run: `tree` is the file with the overrides applied, `overrides` those overrides as they were given."""

    file: Path
    name: str
    overrides: tuple[str, ...]
    tree: dict[str, Any]

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


def load(file: Path, overrides: tuple[str, ...] = ()) -> Run:
    """Read `file` and apply `a.b=value` overrides. Raises ClusterError; the keys themselves are checked by the job."""
    try:
        tree = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except (ValueError, RecursionError) as error:
        raise ClusterError(f"{file} is not TOML: {error}") from None
    for override in overrides:
        _apply(tree, override)
    _check_secrets(tree)
    name = tree.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise ClusterError(f'{file} needs name = "..." of 1 to 64 letters, digits, _ or -; it has {name!r:.80}')
    return Run(file, name, overrides, tree)


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        raise ClusterError(f"--set {override!r:.80} must read KEY=VALUE, as in --set distil.workers=2")
    try:
        override.encode()
    except UnicodeEncodeError:
        raise ClusterError(f"--set {override!r:.80} holds bytes that are no text in UTF-8") from None
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except RecursionError:
        raise ClusterError(f"--set {key} has more brackets in brackets than TOML can have") from None
    except ValueError:  # a bare word is a string, as for the run itself
        value = text
    *tables, last = key.split(".")
    for part in tables:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise ClusterError(f"--set {key}: {part} is a value there, not a table")
    tree[last] = value


def anchored(run: Run, storage: str) -> list[str]:
    """The overrides that put every relative path of `run` below `storage`, an absolute folder or empty.

    Raises ClusterError when a path needs a storage folder and there is none, or when it would leave that folder.
    """
    found: list[tuple[str, str, str]] = []
    for key, default in _PATHS:
        value = run.get(key) or (default and default.format(name=run.name))
        if isinstance(value, str):
            found.append((key, "", value))
    source = run.get("ancestor.source")
    for prefix in _PREFIXES:
        if isinstance(source, str) and source.startswith(prefix):
            found.append(("ancestor.source", prefix, source.removeprefix(prefix)))
    return [
        f"{key}={json.dumps(prefix + _below(key, path, storage))}"
        for key, prefix, path in found
        if not PurePosixPath(path).is_absolute()
    ]


def command(file: str, run: Run, storage: str, tracking_uri: str) -> str:
    """The job's command line for `run`, whose file is called `file` there; see `anchored` for what it raises."""
    settings = [*run.overrides, *anchored(run, storage), f"mlflow.tracking_uri={tracking_uri}", "cluster.address=auto"]
    return shlex.join(["python", "-m", "pipelines", "run", file, *(p for s in settings for p in ("--set", s))])


def output(run: Run, storage: str) -> str:
    """The absolute folder that `run` writes to; two runs must not share it at one time."""
    path = str(run.get("output") or f"runs/{run.name}")
    return path if PurePosixPath(path).is_absolute() else _below("output", path, storage)


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
