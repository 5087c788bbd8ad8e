"""Keys: a short digest of everything a result depends on, by which finished work is recognised.

Each step declares the settings that its result depends on as one tuple of dotted fields, next to the
code that makes the result. A field is a setting (``distil.recipe``, a whole section such as
``templates``) or a property that says what several settings mean together (``distil.anneals``).
"""

import hashlib
import json
from collections.abc import Iterable
from operator import attrgetter
from typing import Any

from pydantic_core import to_jsonable_python

from pipelines.config.data import CHANGES
from pipelines.config.experiment import Experiment

KEY_VERSION = 1
"""Raise it when equal settings come to mean another result. Committed results then need a migration
like ``benchmarks/migrate_keys.py``; results of users are made again."""

IMAGE_CHANGES = tuple(f"data.{name}" for name in CHANGES)
"""The settings that change training images."""


def key_of(step: str, *parts: object) -> str:
    """16 hexadecimal digits for a step's result; ``parts`` are JSON types.

    Values of another type are a ``TypeError``: their text could change without a change of meaning.
    """
    text = json.dumps([KEY_VERSION, step, *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def settings_at(experiment: Experiment, fields: Iterable[str]) -> dict[str, Any]:
    """Each of the dotted ``fields`` with its value as JSON types."""
    return {field: to_jsonable_python(attrgetter(field)(experiment)) for field in fields}
