"""JSON from a file that somebody else may have written, with limits on size, depth and numbers."""

import json
import math
from pathlib import Path
from typing import Any, NoReturn

from .errors import WaveError
from .typed import json_values

LARGEST_BYTES = 64 << 20
DEEPEST = 64
"""Tables in tables: deeper ones cannot be walked by recursion, and nothing here is."""
_DIGITS = 40
"""Of a number: float64 has 17 that count, and int() takes time that grows with their square."""


class JsonError(WaveError):
    """What is wrong with a file's JSON; the text names the file."""


def read_json(path: Path) -> Any:
    """Return what a file says.

    Raises:
        JsonError: It is not valid JSON, or beyond the limits.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(LARGEST_BYTES + 1)
    return parse_json(content, path)


def parse_json(content: bytes | str, where: object) -> Any:
    """Return what a text says, as :func:`read_json`; ``where`` begins the message."""
    if len(content) > LARGEST_BYTES:
        size = f"more than {LARGEST_BYTES >> 20} MiB of JSON"
        raise JsonError(f"{where}: {size}, which this program never writes")
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
        shown = f"{text[:20]}..." if len(text) > 20 else text
        raise ValueError(f"the number {shown} is beyond float64")
    return value


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _depth(data: object) -> int:
    """How deep tables and lists are nested, at most ``DEEPEST`` and one; without recursion."""
    depth, level = 0, [data]
    while depth <= DEEPEST:
        inside = [inner for value in level for inner in json_values(value)]
        if not any(isinstance(value, dict | list) for value in level):
            break
        depth, level = depth + 1, inside
    return depth
