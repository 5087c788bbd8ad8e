"""The values that deployment files are rendered from, read strictly: a key that nothing uses is an error."""

import difflib
import re
import tomllib
import typing
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from .errors import ClusterError

T = TypeVar("T")


@dataclass(frozen=True)
class Versions:
    """What the image is built on."""

    ray: str
    python: str


@dataclass(frozen=True)
class Storage:
    """The folder that every node sees."""

    path: str
    size: str
    nfs: str
    storage_class: str = field(metadata={"key": "class"})


@dataclass(frozen=True)
class Mlflow:
    """The MLflow server."""

    port: int
    size: str
    secret: str
    hosts: list[str]


@dataclass(frozen=True)
class Nodes:
    """One kind of node; `cpus`, `gpus` and `memory` are a node's, `aws` and `gcp` the machine type to rent for it."""

    cpus: int
    gpus: int
    memory: str
    min: int
    max: int
    aws: str
    gcp: str


@dataclass(frozen=True)
class Rented:
    """Machines that `ray up` reaches by SSH."""

    ssh_user: str
    disk_gb: int
    aws_region: str
    gcp_project: str
    gcp_region: str
    gcp_zone: str
    gcp_image: str
    head_ip: str
    worker_ips: list[str]


@dataclass(frozen=True)
class Values:
    """values.toml as a whole."""

    name: str
    namespace: str
    image: str
    run: str
    set: list[str]
    retries: int
    shared_memory: str
    idle_minutes: int
    kueue_queue: str
    versions: Versions
    storage: Storage
    mlflow: Mlflow
    head: Nodes
    workers: dict[str, Nodes]
    rented: Rented


def load(file: Path) -> Values:
    """Read and check `file`. Raises ClusterError that names the file, the key and the nearest valid one."""
    try:
        values = _build(Values, tomllib.loads(file.read_text(encoding="utf-8")), str(file), "")
    except OSError as error:
        raise ClusterError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ClusterError(
            f"{file} is not text in UTF-8, as TOML must be: byte {error.start} is no part of it"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ClusterError(f"{file} is not TOML: {error}") from error
    for key, name in (
        ("name", values.name),
        ("namespace", values.namespace),
        *(("workers", w) for w in values.workers),
    ):
        if not re.fullmatch(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", name):
            raise ClusterError(
                f"{file}: {key} {name!r} must be up to 40 small letters, digits and -, as Kubernetes wants"
            )
    for key, version in (("ray", values.versions.ray), ("python", values.versions.python)):
        if not re.fullmatch(r"[0-9][0-9A-Za-z.]*", version):
            raise ClusterError(f"{file}: versions.{key} = {version!r} must be one exact version")
    for kind, nodes in {"head": values.head, **values.workers}.items():
        if not 0 <= nodes.min <= nodes.max:
            raise ClusterError(
                f"{file}: {kind} has min = {nodes.min} and max = {nodes.max}; 0 <= min <= max is the rule"
            )
    _check_texts(values, file)
    return values


def _check_texts(values: Values, file: Path) -> None:
    """Refuse texts that would only fail on the cluster, or that a shell there would read as more than a name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*", values.image):
        raise ClusterError(f"{file}: image {values.image!r:.80} must name an image, as in registry.example.org/wave:1")
    parts = PurePosixPath(values.run).parts
    if parts[:1] != ("pipelines",) or ".." in parts or not re.fullmatch(r"[A-Za-z0-9/._-]+\.toml", values.run):
        raise ClusterError(
            f"{file}: run {values.run!r:.80} must be a TOML file below pipelines/, the folder that the image has"
        )
    sizes = {
        "shared_memory": values.shared_memory,
        "storage.size": values.storage.size,
        "mlflow.size": values.mlflow.size,
    }
    sizes |= {"head.memory": values.head.memory} | {f"workers.{k}.memory": n.memory for k, n in values.workers.items()}
    for key, size in sizes.items():
        if not re.fullmatch(r"[0-9]+(\.[0-9]+)?([KMGTPE]i|[kMGTPE])?", size):
            raise ClusterError(f"{file}: {key} {size!r:.80} must be a Kubernetes quantity, as in 32Gi or 500M")
    path = values.storage.path
    if not path.startswith("/"):
        raise ClusterError(f"{file}: storage.path {path!r:.80} must be absolute, the same on every node")
    if not re.fullmatch(r"[A-Za-z0-9/._-]+", path) or ".." in PurePosixPath(path).parts or not path.strip("/"):
        raise ClusterError(f"{file}: storage.path {path!r:.80} must be a folder of letters, digits, ., _ and -")
    if not re.fullmatch(r"[A-Za-z0-9/:._-]*", values.storage.nfs):
        raise ClusterError(f"{file}: storage.nfs {values.storage.nfs!r:.80} must read HOST:/export, or be empty")


def _build(kind: type[T], raw: Any, file: str, where: str) -> T:
    if not isinstance(raw, dict):
        raise ClusterError(f"{file}: {where or 'the file'} must be a table")
    # A dataclass field whose name Python reserves carries its key in its metadata.
    known = {f.metadata.get("key", f.name): f for f in fields(kind)}  # pyright: ignore[reportArgumentType]
    for key in raw:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise ClusterError(f"{file}: unknown key {where}{key}; {hint}")
    if missing := [key for key, f in known.items() if key not in raw and f.default is MISSING]:
        raise ClusterError(f"{file}: {where}{missing[0]} is missing")
    hints = typing.get_type_hints(kind)
    return kind(**{f.name: _value(hints[f.name], raw[key], file, where + key) for key, f in known.items()})


def _value(hint: Any, raw: Any, file: str, where: str) -> Any:
    if isinstance(hint, type) and is_dataclass(hint):
        return _build(hint, raw, file, where + ".")
    if outer := typing.get_origin(hint):
        inner = typing.get_args(hint)[-1]
        if not isinstance(raw, outer):
            raise ClusterError(f"{file}: {where} must be a {'table' if outer is dict else 'list'}, not {raw!r:.60}")
        if outer is dict:
            return {key: _value(inner, value, file, f"{where}.{key}") for key, value in raw.items()}
        return [_value(inner, value, file, where) for value in raw]
    if not isinstance(raw, hint) or isinstance(raw, bool) or (hint is int and raw < 0):
        wanted = {int: "a whole number from 0", str: "text"}[hint]
        raise ClusterError(f"{file}: {where} must be {wanted}, not {raw!r:.60}")
    return raw
