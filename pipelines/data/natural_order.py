"""The order of classes: numbers in names count as numbers, as in timm's reader of folders."""

import re
from collections.abc import Iterable

_NUMBER = re.compile(r"(\d+)")


def natural_order(names: Iterable[str]) -> tuple[str, ...]:
    """``0 1 2 10``, not ``0 1 10 2``; capital and small letters are the same, as timm has them.

    A checkpoint of timm's ``train.py`` numbers its classes so, and names its labels no other way.
    """
    return tuple(sorted(names, key=lambda name: (_key(name), name)))


def _key(name: str) -> list[str | int]:
    return [int(part) if part.isdecimal() else part for part in _NUMBER.split(name.lower())]
