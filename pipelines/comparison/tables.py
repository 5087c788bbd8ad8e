"""The comparison on the console: one table per study."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.comparison.cells import size_of
from pipelines.runtime.console import _table


def show_cells(
    rows: Sequence[Mapping[str, Any]], reach: Mapping[str, Sequence[str | None]], sizes: Sequence[Any]
) -> None:
    """A comparison: a line a method and step, a column a size; mean accuracy, and the spread over seeds as +-."""
    console, table = _table("method", "steps", *(size.name for size in sizes))
    for method, reasons in reach.items():
        mine = [row for row in rows if row["method"] == method]
        measured = sorted({row["steps"] for row in mine})
        for steps in measured or ["-"]:  # a method that reaches no size still has its line
            cells = []
            for size, why in zip(sizes, reasons, strict=True):
                here = [r["accuracy"] for r in mine if (size_of(r), r["steps"]) == (size, steps)]
                spread = f" +-{statistics.stdev(here):.1%}" if len(here) > 1 else ""
                cells.append(f"{statistics.mean(here):.1%}{spread}" if here else why or "-")
            table.add_row(method, str(steps), *cells)
    console.print(table)
