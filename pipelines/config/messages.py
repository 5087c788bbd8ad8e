"""Mistakes in a configuration as one line each: the key, what was given, the rule, the nearest that works."""

import dataclasses
import difflib
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pydantic import BaseModel, ValidationError

from pipelines.config.validation import SettingError


def one_line(
    error: ValidationError, model: type[BaseModel], data: Mapping[str, Any], where: str, overridden: Sequence[str]
) -> str:
    """The first mistake as one line: key, what was given, the rule, the nearest key or value.

    It begins with ``where``, or with ``--set`` for a key in ``overridden``.
    """
    lines: dict[str, str] = {}
    # a misspelt key comes first: what is missing or wrong beside it is often its consequence
    mistakes = sorted(error.errors(include_url=False), key=lambda e: e["type"] not in _UNKNOWN)
    for mistake in mistakes:
        path, value = _locate(mistake["loc"], data, mistake["type"] == "missing")
        cause = mistake.get("ctx", {}).get("error")
        if isinstance(cause, SettingError):
            path = ".".join(p for p in (path, cause.key) if p)
        text = _describe(mistake["type"], mistake["msg"], path, value, model, cause)
        lines[path] = lines.get(path) or text
    (path, first), rest = next(iter(lines.items())), len(lines) - 1
    by_hand = any(path == key or path.startswith((f"{key}.", f"{key}[")) for key in overridden)
    by_hand = by_hand or (
        first.startswith(f"{path} is not a key") and any(k.startswith(f"{path}.") for k in overridden)
    )
    return ("--set " if by_hand else f"{where}: ") + first + (f" (and {rest} more)" if rest else "")


_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


def _locate(loc: tuple[int | str, ...], data: Any, missing: bool) -> tuple[str, Any]:
    """The part of ``loc`` that stands in the file (pydantic adds the names of union members), and the value there."""
    path = ""
    for index, part in enumerate(loc):
        if isinstance(part, int) and isinstance(data, list) and part < len(data):
            path, data = f"{path}[{part}]", data[part]
        elif isinstance(data, dict) and part in data:
            path, data = (f"{path}.{part}" if path else str(part)), data[part]
        elif missing and index == len(loc) - 1 and isinstance(data, dict):
            return (f"{path}.{part}" if path else str(part)), None
    return path, data


def _describe(kind: str, message: str, path: str, value: Any, model: type, cause: object) -> str:
    if kind in _UNKNOWN:
        return unknown_key(model, path)
    if kind == "missing" and value is None:
        return f"{path} is missing"
    if isinstance(cause, SettingError):
        return path + ("" if str(cause).startswith("=") else " ") + str(cause)
    if cause is not None and isinstance(value, str):
        return f"{path}={_shortened(value)} {cause}"
    if cause is not None:
        return f"{path}: {cause}" if path else str(cause)
    if kind in ("dataclass_type", "model_type", "dict_type"):
        return f"{path}={_shortened(value)} should be a table"
    if kind == "string_type" and not isinstance(value, dict | list):
        return f"{path}={_shortened(value)} should be text; put it in quotes"
    rule = re.sub(r"^(Input|String|List|Dictionary|Tuple|Value) ", "", message)
    near = ""
    if kind == "literal_error" and isinstance(value, str):
        found = difflib.get_close_matches(value, re.findall(r"'([^']*)'", message), 1, 0.5)
        near = f"; nearest: {found[0]}" if found else ""
    return f"{path}={_shortened(value)} {lower_first(rule)}{near}"


def unknown_key(model: type, path: str) -> str:
    """``a.b.c is not a key; nearest: d``: among its siblings, else the same key in another section."""
    known = sorted(set(_paths(model)))
    parent, _, key = re.sub(r"\[\d+\]", "", path).rpartition(".")
    siblings = [p.rpartition(".")[2] for p in known if p.rpartition(".")[0] == parent]
    elsewhere = [p for p in known if p.rpartition(".")[2] == key]
    elsewhere.sort(key=lambda p: p.partition(".")[0] != parent.partition(".")[0])
    near = difflib.get_close_matches(key, siblings, 1, 0.7) or elsewhere[:1]
    near = near or difflib.get_close_matches(key, siblings, 1, 0.5)
    return f"{path} is not a key; " + (f"nearest: {near[0]}" if near else f"keys there: {', '.join(siblings)}")


def _paths(annotation: Any, prefix: str = "") -> Iterator[str]:
    """All dotted keys of a model, dataclasses, lists and unions of them included."""
    if get_origin(annotation) in (Union, types.UnionType, list, Annotated):
        for member in get_args(annotation):
            yield from _paths(member, prefix)
    fields: dict[str, Any] = {}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = {name: field.annotation for name, field in annotation.model_fields.items()}
    elif isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        fields = {field.name: field.type for field in dataclasses.fields(annotation)}
    for name, kind in fields.items():
        yield prefix + name
        yield from _paths(kind, f"{prefix}{name}.")


def _shortened(value: Any) -> str:
    text = redacted(value) if isinstance(value, str) else value
    text = repr(text)
    return text if len(text) <= 80 else text[:77] + "..."


def lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def redacted(uri: str) -> str:
    """``uri`` without its password: ``http://user:secret@host`` becomes ``http://user@host``."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return re.sub(r"://[^/\s]*@", "://", uri)
    if not parts.scheme:
        return uri
    user, at, host = parts.netloc.rpartition("@")
    query = parse_qsl(parts.query, keep_blank_values=True)
    kept = [(k, v) for k, v in query if not re.search("pass|pwd|token|secret", k, re.IGNORECASE)]
    text = parts.query if len(kept) == len(query) else urlencode(kept)
    if (not at or ":" not in user) and text == parts.query:
        return uri
    return urlunsplit((parts.scheme, user.partition(":")[0] + at + host, parts.path, text, parts.fragment))
