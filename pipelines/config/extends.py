"""Extends: the settings of one experiment's file on top of another's."""

from pathlib import Path
from typing import Any

from wave.errors import WaveError


def base_of(path: Path, table: dict[str, Any]) -> Path | None:
    """The file that ``table``, read from ``path``, extends; None if it names none.

    Raises :class:`WaveError` for a name that cannot be one.
    """
    name = table.get("extends", "")
    if not isinstance(name, str):
        raise WaveError(f"{path}: extends={name!r} should be text; put the name in quotes")
    if Path(name).is_absolute():
        raise WaveError(
            f"{path}: extends={name!r} should be relative to the folder of {path.name}, so that a job finds both"
        )
    return path.resolve().parent / name if name else None


def merged(base: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    """``table`` on top of ``base``: tables key by key, everything else as ``table`` has it."""
    result = dict(base)
    for key, value in table.items():
        below = result.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            value = merged(below, value)
        result[key] = value
    return result
