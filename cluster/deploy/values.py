"""The values that deployment files are rendered from, read strictly: a key that nothing uses is an error."""

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cluster.deploy.value_types import (
    Count,
    Digest,
    Export,
    File,
    Folder,
    Group,
    Host,
    HostHeader,
    Image,
    Key,
    KmsKey,
    Label,
    LabelOrNone,
    Name,
    Network,
    Port,
    Quantity,
    SubDomain,
    SubDomainOrNone,
    Version,
    Word,
)
from cluster.errors import ClusterError


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Versions(_Table):
    """What the image is built on."""

    ray: Version
    python: Version
    digest: Digest


class Storage(_Table):
    """The folder that every node sees."""

    path: Folder
    size: Quantity
    nfs: Export
    storage_class: Annotated[SubDomainOrNone, Field(alias="class")]


class Mlflow(_Table):
    """The MLflow server."""

    port: Port
    size: Quantity
    secret: SubDomain
    account: SubDomain
    hosts: list[HostHeader]

    @model_validator(mode="after")
    def _two(self) -> "Mlflow":
        if self.account == self.secret:
            raise ValueError(f"has one Secret, {self.secret}, for administrator and account; name two")
        return self


class Toleration(_Table):
    """A taint of Kubernetes' nodes that pods put up with."""

    key: Key
    operator: Literal["Equal", "Exists"]
    value: Word = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""

    @model_validator(mode="after")
    def _exists(self) -> "Toleration":
        if self.value and self.operator == "Exists":
            raise ValueError(f"has the operator Exists and the value {self.value}; only Equal has one")
        return self


class Kubernetes(_Table):
    """What every pod gets, and whom it may talk to."""

    pull_secrets: list[SubDomain]
    priority_class: SubDomainOrNone
    annotations: dict[Key, str]
    node_selector: dict[Key, Word]
    tolerations: list[Toleration]
    deadline_minutes: Count
    operator: Label
    api_server: list[Network]
    outside: list[Network]


class Machine(_Table):
    """A node: what it has, the machine type to rent for it, where Kubernetes may put it."""

    cpus: Annotated[int, Field(ge=1, le=1_000_000)]
    gpus: Count
    memory: Quantity
    aws: Name
    gcp: Name
    node_selector: dict[Key, Word]
    tolerations: list[Toleration]


class Workers(Machine):
    """One kind of worker: from `min` to `max` such nodes."""

    min: Count
    max: Count
    spot: bool

    @model_validator(mode="after")
    def _bounds(self) -> "Workers":
        if self.min > self.max:
            raise ValueError(f"has min = {self.min} and max = {self.max}; 0 <= min <= max is the rule")
        return self


class Rented(_Table):
    """Machines that `ray up` reaches by SSH."""

    ssh_user: Name
    disk_gb: Annotated[int, Field(ge=1)]
    aws_region: Name
    aws_kms_key: KmsKey
    gcp_project: Name
    gcp_region: Name
    gcp_zone: Name
    gcp_image: Name
    gcp_kms_key: KmsKey
    head_ip: Host
    worker_ips: list[Host]


class Values(_Table):
    """values.toml as a whole."""

    name: Label
    namespace: Label
    image: Image
    run: File
    set: list[str]
    retries: Count
    shared_memory: Quantity
    idle_minutes: Count
    kueue_queue: LabelOrNone
    versions: Versions
    storage: Storage
    mlflow: Mlflow
    kubernetes: Kubernetes
    head: Machine
    workers: dict[Group, Workers]
    rented: Rented

    @property
    def groups(self) -> dict[str, Workers]:
        """The kinds of worker that there can be any of."""
        return {name: nodes for name, nodes in self.workers.items() if nodes.max}


def load(file: Path) -> Values:
    """Read and check `file`. Raises ClusterError that names the file, the key and the nearest valid one."""
    try:
        return Values.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise ClusterError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ClusterError(
            f"{file} is not text in UTF-8, as TOML must be: byte {error.start} is no part of it"
        ) from error
    except ValidationError as error:
        raise ClusterError(f"{file}: {_first(error)}") from None
    except (ValueError, RecursionError) as error:
        raise ClusterError(f"{file} is not TOML: {error}") from None


def _first(error: ValidationError) -> str:
    """The first mistake: an unknown key before all others, since a misspelt one is missing as well."""
    mistakes = sorted(error.errors(include_url=False), key=lambda found: found["type"] != "extra_forbidden")
    kind, given, context = mistakes[0]["type"], mistakes[0]["input"], mistakes[0].get("ctx", {})
    loc = [str(part) for part in mistakes[0]["loc"]]
    key = ".".join(part for part in loc if part != "[key]")
    if kind == "extra_forbidden":
        known = _keys(loc[:-1])
        near = difflib.get_close_matches(loc[-1], known, 1)
        return f"unknown key {key}; " + (f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}")
    if kind == "missing":
        return f"{key} is missing"
    if kind == "value_error":
        return f"{key} {context['error']}" if isinstance(given, Mapping) else f"{key} {given!r:.80} {context['error']}"
    wanted = {
        "int_type": "a whole number from 0",
        "greater_than_equal": "a whole number from {ge}",
        "less_than_equal": "at most {le}",
        "string_type": "text",
        "list_type": "a list",
        "bool_type": "true or false",
        "literal_error": "{expected}",
    }.get(kind, "a table")
    return f"{key} must be {wanted.format(**context)}, not {given!r:.60}"


def _keys(loc: list[str]) -> list[str]:
    """The keys of the table at `loc`."""
    table: Any = Values
    for part in loc:
        # Below a list or a dict stand an index or a name; what they hold comes last in its type.
        if get_args(table):
            table = get_args(table)[-1]
        else:
            table = next(field.annotation for name, field in table.model_fields.items() if part in (name, field.alias))
    return [field.alias or name for name, field in table.model_fields.items()]
