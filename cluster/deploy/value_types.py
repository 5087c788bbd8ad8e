"""What a value of values.toml may look like: one type for each kind of text and number."""

import ipaddress
import re
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, Field


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
Digest = Annotated[
    str,
    _text(r"(sha256:[0-9a-f]{64})?", "must read sha256: and 64 digits or letters a-f, or be empty"),
]
KmsKey = Annotated[str, _text(r"[A-Za-z0-9._:/-]*", "must name a key, as its ARN or resource name, or be empty")]
_WORD = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
# What Kubernetes takes as the key and the value of a label, an annotation or a taint.
Key = Annotated[
    str,
    _text(rf"([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?{_WORD}", "must be a key, as in example.org/pool"),
]
Word = Annotated[str, _text(rf"({_WORD})?", "must be up to 63 letters, digits, ., _ and -, or be empty")]


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise ValueError("must be a network, as in 10.0.0.0/8 or 10.1.2.3/32") from None
    return text


Network = Annotated[str, AfterValidator(_network)]
