"""The registry on the console: one line per model."""

from collections.abc import Sequence
from typing import Any

from pipelines.runtime.console import _percent, _table


def show_models(rows: Sequence[Any]) -> None:
    """The registry as a table."""
    console, table = _table("model", "version", "parameters", "at step 0", "after training", "from scratch")
    for row in rows:
        scores = [row.tags.get(f"accuracy_{when}") for when in ("before", "after", "scratch")]
        cells = [_percent(None if s is None else float(s)) for s in scores]
        table.add_row(f"{row.registered_model}@{row.alias}", str(row.version), row.tags.get("parameters", "-"), *cells)
    console.print(table)
