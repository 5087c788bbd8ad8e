"""JSON from a file that somebody else may have written: limits on size, depth and numbers, every refusal one line."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn, cast

from .errors import WaveError

LARGEST_BYTES = 64 << 20
DEEPEST = 64
"""Tables in tables: deeper ones cannot be walked by recursion, and nothing here is."""
_DIGITS = 40
"""Of a number: float64 has 17 that count, and int() takes time that grows with their square."""


class JsonError(WaveError):
    """What is wrong with a file's JSON; the text names the file."""


def read_json(path: Path) -> Any:
    """What the file says. Raises :class:`JsonError` for JSON that is not valid or beyond the limits, OSError else."""
    with path.open("rb") as file:
        content = file.read(LARGEST_BYTES + 1)
    return parse_json(content, path)


def parse_json(content: bytes | str, where: object) -> Any:
    """The same of text; ``where`` begins the message."""
    if len(content) > LARGEST_BYTES:
        raise JsonError(f"{where}: more than {LARGEST_BYTES >> 20} MiB of JSON, which this program never writes")
    try:
        data = json.loads(content, parse_int=_integer, parse_float=_float, parse_constant=_constant)
    except RecursionError:
        raise JsonError(f"{where}: not valid JSON here (nested more than {DEEPEST} deep)") from None
    except ValueError as error:
        raise JsonError(f"{where}: not valid JSON ({' '.join(str(error).split())[:160]})") from None
    if _depth(data) > DEEPEST:
        raise JsonError(f"{where}: not valid JSON here (nested more than {DEEPEST} deep)")
    return data


def _integer(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"a number of {len(text)} digits; at most {_DIGITS}")
    return int(text)


def _float(text: str) -> float:
    value = float(text) if len(text) <= 8 * _DIGITS else math.inf
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]}{'...' if len(text) > 20 else ''} is beyond float64")
    return value


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _depth(data: object) -> int:
    """How many tables and lists stand in one another, without recursion; at most one more than ``DEEPEST``."""
    depth, level = 0, [data]
    while depth <= DEEPEST:
        inside = [cast(object, v) for value in level for v in _values(value)]
        if not any(isinstance(value, dict | list) for value in level):
            break
        depth, level = depth + 1, inside
    return depth


def _values(value: object) -> Iterable[Any]:
    if isinstance(value, dict):
        return cast(dict[str, Any], value).values()
    return cast(list[Any], value) if isinstance(value, list) else ()
