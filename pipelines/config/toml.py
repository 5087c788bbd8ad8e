"""Text to settings and back: TOML files, ``--set`` overrides, mistakes as one line each, the TOML that is logged."""

import difflib
import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.config.extends import base_of, merged
from pipelines.config.messages import lower_first
from pipelines.config.toml_limits import LARGEST_BYTES, MOST_PARTS, check_text, check_values
from wave.errors import WaveError

# --- reading ---------------------------------------------------------------------------------------------------------


def read_toml(path: str | Path) -> dict[str, Any]:
    """The table in a UTF-8 TOML file, on top of that of the file that its ``extends`` names.

    Raises :class:`WaveError` for a file that is missing, unreadable or not TOML.
    """
    path = Path(path)
    table = _read_one(path)
    base = base_of(path, table)
    table.pop("extends", None)
    if base is None:
        return table
    try:
        below = _read_one(base)
    except WaveError as error:
        raise WaveError(f"{path}: extends: {error}") from None
    if below.get("extends"):
        raise WaveError(
            f"{path}: extends {base.name}, which extends another file itself; "
            "extend that one, or put the settings of both into one file"
        )
    return merged(below, table)


def _read_one(path: str | Path) -> dict[str, Any]:
    """The table in a UTF-8 TOML file. Raises :class:`WaveError` for a file that is missing, unreadable or not TOML."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_BYTES + 1).decode("utf-8-sig")
        check_text(text)
        table = tomllib.loads(text)
        check_values(table)
        return table
    except WaveError as error:
        raise WaveError(f"{path}: {error}") from None
    except UnicodeDecodeError as error:
        raise WaveError(f"{path}: line {error.object[: error.start].count(10) + 1} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise WaveError(f"{path}: not valid TOML: {lower_first(str(error))}") from None
    except IsADirectoryError:
        raise WaveError(f"{path}: is a folder; name one TOML file in it") from None
    except FileNotFoundError:
        found = sorted(p.name for p in path.parent.glob("*.toml")) if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, found, 1, 0.5) or found[:1]
        raise WaveError(f"{path}: no such file" + (f"; nearest: {path.parent / near[0]}" if near else "")) from None
    except OSError as error:
        raise WaveError(f"{str(path)[:200]}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # a NUL in the path, a number of 5,000 digits, 1,000 nested arrays
        raise WaveError(f"{str(path)[:200]!r}: cannot be read: {lower_first(str(error))}") from None


def apply_overrides(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """``data`` with every ``a.b=value`` set. A value is TOML, else text; an empty one takes the key out."""
    data = _copy(data)
    for override in overrides:
        key, equals, text = override.partition("=")
        parts = [part.strip() for part in key.split(".")]
        if not equals or not all(parts):
            raise WaveError(
                f"--set {override[:200]}: write section.key=value, for example --set distil.recipe.lr=0.001"
            )
        if any("\ud800" <= letter <= "\udfff" for letter in override):
            raise WaveError(f"--set {override[:200]!r} holds bytes that are no text in UTF-8")
        if len(parts) > MOST_PARTS:
            raise WaveError(f"--set {key[:80]}...: a key of more than {MOST_PARTS} parts")
        table = data
        for depth, part in enumerate(parts[:-1], 1):
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise WaveError(f"--set {override}: {'.'.join(parts[:depth])} is not a table; set it whole")
        if text.strip():
            table[parts[-1]] = parse_value(text)
        else:
            table.pop(parts[-1], None)
    return data


def overridden(overrides: Sequence[str]) -> list[str]:
    """The keys of overrides, without the blanks that may stand in them."""
    return [".".join(part.strip() for part in override.partition("=")[0].split(".")) for override in overrides]


def parse_value(text: str) -> Any:
    """``text`` as a TOML value, or as it stands when it is none (``timm:vit_tiny`` needs no quotes)."""
    try:
        check_text(text)
        table = tomllib.loads(f"value = {text}")
        check_values(table)
    except (ValueError, RecursionError):
        return text
    value = table["value"]
    plain = bool | int | float | str | list | dict
    return value if len(table) == 1 and isinstance(value, plain) else text


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _copy(v) for k, v in value.items()}
    return [_copy(v) for v in value] if isinstance(value, list) else value


# --- mistakes --------------------------------------------------------------------------------------------------------


# --- writing ---------------------------------------------------------------------------------------------------------


def to_toml(table: Mapping[str, Any], name: str = "") -> str:
    """TOML of nested tables, lists, text, numbers and booleans, without ``None``; ``tomllib`` reads it back equal."""
    table = {k: v for k, v in table.items() if v is not None}
    lines = [f"{_key(k)} = {_value(v)}" for k, v in table.items() if not isinstance(v, Mapping)]
    text = (f"[{name}]\n" if name else "") + "".join(line + "\n" for line in lines)
    for key, value in table.items():
        if isinstance(value, Mapping):
            text += "\n" + to_toml(value, f"{name}.{_key(key)}" if name else _key(key))
    return text


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(value: Any) -> str:
    if isinstance(value, str):  # JSON's escapes are TOML's, but for DEL and pairs of surrogates
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None) + "}"
    return "[" + ", ".join(_value(v) for v in value) + "]"
