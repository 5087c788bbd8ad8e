"""The registry on the console: one line per model."""

import math
from collections.abc import Sequence
from typing import Any

from pipelines.runtime.console import percent, plain_table
from pipelines.runtime.printable import printable


def show_models(rows: Sequence[Any]) -> None:
    """The registry as a table."""
    console, table = plain_table("model", "version", "parameters", "at step 0", "after training", "from scratch")
    for row in rows:
        shown = [_score(row.tags.get(f"accuracy_{when}")) for when in ("before", "after", "scratch")]
        cells = [f"{row.registered_model}@{row.alias}", str(row.version), row.tags.get("parameters", "-"), *shown]
        table.add_row(*map(printable, cells))
    console.print(table)


def _score(tag: str | None) -> str:
    """A tag as a share; as it is where somebody made it something else."""
    try:
        value = None if tag is None else float(tag)
    except ValueError:
        return str(tag)
    return percent(value) if value is None or math.isfinite(value) else str(tag)
