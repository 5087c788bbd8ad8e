"""The values that deployment files are rendered from, read strictly: a key that nothing uses is an error."""

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from cluster.errors import ClusterError


def _text(pattern: str, rule: str) -> AfterValidator:
    """A check that text is a full match of `pattern`; `rule` is what the message says."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(rule)
        return text

    return AfterValidator(check)


def _inside(text: str) -> str:
    if ".." in PurePosixPath(text).parts:
        raise ValueError("must name no folder above")
    return text


_LABEL = r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?"
_LABELS = "must be up to 40 small letters, digits and -, as Kubernetes wants"
Label = Annotated[str, _text(_LABEL, _LABELS)]
Group = Annotated[Label, _text("(?!head$).*", "is the head's own name; call these workers otherwise")]
LabelOrNone = Annotated[str, _text(f"({_LABEL})?", f"{_LABELS}, or empty")]
_SUBDOMAIN = r"(?=.{1,253}$)[a-z0-9]([a-z0-9.-]*[a-z0-9])?"
_SUBDOMAINS = "must be small letters, digits, - and ."
SubDomain = Annotated[str, _text(_SUBDOMAIN, _SUBDOMAINS)]
SubDomainOrNone = Annotated[str, _text(f"({_SUBDOMAIN})?", f"{_SUBDOMAINS}, or empty")]
Quantity = Annotated[
    str,
    _text(r"(?=.*[1-9])[0-9]+(\.[0-9]+)?([KMGTPE]i|[kMGTPE])?", "must be a Kubernetes quantity, as in 32Gi or 500M"),
]
Version = Annotated[str, _text(r"[0-9][0-9A-Za-z.]*", "must be one exact version")]
Image = Annotated[str, _text(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*", "must name an image, as in registry.example.org/wave:1")]
File = Annotated[
    str,
    _text(r"pipelines/[A-Za-z0-9/._-]+\.toml", "must be a TOML file below pipelines/, the folder that the image has"),
    AfterValidator(_inside),
]
Folder = Annotated[
    str,
    _text(r"/[A-Za-z0-9._-][A-Za-z0-9/._-]*", "must be an absolute folder of letters, digits, ., _ and -"),
    AfterValidator(_inside),
]
Export = Annotated[str, _text(r"([A-Za-z0-9._-]+:/[A-Za-z0-9/._-]*)?", "must read HOST:/export, or be empty")]
Name = Annotated[str, _text(r"[A-Za-z0-9][A-Za-z0-9._/-]*", "must be letters, digits, ., _, / and -")]
Host = Annotated[
    str, _text(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", "must be a host's name or address, without a port")
]
HostHeader = Annotated[
    str, _text(r"[A-Za-z0-9*.:\[\]-]+", "must be a name, as in mlflow.example.org or mlflow.example.org:8443")
]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Port = Annotated[int, Field(ge=1, le=65535)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Versions(_Table):
    """What the image is built on."""

    ray: Version
    python: Version


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
    hosts: list[HostHeader]


class Machine(_Table):
    """A node: `cpus`, `gpus` and `memory` are what it has, `aws` and `gcp` the machine type to rent for it."""

    cpus: Annotated[int, Field(ge=1, le=1_000_000)]
    gpus: Count
    memory: Quantity
    aws: Name
    gcp: Name


class Workers(Machine):
    """One kind of worker: from `min` to `max` such nodes."""

    min: Count
    max: Count

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
    gcp_project: Name
    gcp_region: Name
    gcp_zone: Name
    gcp_image: Name
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
    }.get(kind, "a table")
    return f"{key} must be {wanted.format(**context)}, not {given!r:.60}"


def _keys(loc: list[str]) -> list[str]:
    """The keys of the table at `loc`."""
    table: Any = Values.model_fields[loc[0]].annotation if loc else Values
    table = Workers if loc[:1] == ["workers"] else table
    return [field.alias or name for name, field in table.model_fields.items()]
