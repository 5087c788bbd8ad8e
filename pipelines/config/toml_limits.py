"""What a TOML text may look like before it is parsed: Python's parser takes time that grows with the square of a key's
parts, and recursion for each bracket."""

import re
from typing import Any

from wave.errors import WaveError

LARGEST_BYTES = 256 << 10
MOST_PARTS = 32
"""Of a dotted key, and brackets in brackets."""
_STRING_OR_COMMENT = re.compile(
    r"\"\"\"(?:\\.|[^\\])*?(?:\"\"\"|\Z)|'''.*?(?:'''|\Z)|\"(?:\\.|[^\"\\\n])*+\"?|'[^'\n]*+'?|\#[^\n]*+", re.DOTALL
)
_DOTTED = re.compile(rf"(?<![\w-])(?:[\w-]++[ \t]*+\.[ \t]*+){{{MOST_PARTS}}}")
_DIGITS = re.compile(r"[0-9_]{65}")
_TOO_DEEP = f"more than {MOST_PARTS} tables or lists in one another"


def check_text(text: str) -> None:
    """Raise :class:`WaveError` with the limit that a TOML text is beyond."""
    if len(text) > LARGEST_BYTES:
        raise WaveError(f"more than {LARGEST_BYTES >> 10} KiB; an experiment has a few hundred lines")
    bare = _STRING_OR_COMMENT.sub("s", text)
    if _DOTTED.search(bare):
        raise WaveError(f"a key of more than {MOST_PARTS} parts")
    if _DIGITS.search(bare):
        raise WaveError("a number of more than 64 digits")
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", bare):
        depth = depth + 1 if bracket in "[{" else max(depth - 1, 0)
        if depth > MOST_PARTS:
            raise WaveError(_TOO_DEEP)


def check_values(table: dict[str, Any]) -> None:
    """Raise :class:`WaveError` for what TOML can say and no setting be: endless tables, numbers beyond 64 bits."""
    level: list[tuple[str, Any]] = list(table.items())
    for _ in range(MOST_PARTS + 1):
        inside: list[tuple[str, Any]] = []
        for key, value in level:
            if isinstance(value, dict):
                inside += [(f"{key}.{k}", v) for k, v in value.items()]
            elif isinstance(value, list):
                inside += [(f"{key}[{i}]", v) for i, v in enumerate(value)]
            elif isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise WaveError(f"{key[:80]} is a whole number beyond 64 bits, the most that TOML has")
        if not inside:
            return
        level = inside
    raise WaveError(_TOO_DEEP)
