"""The comparison on the console: one table per study."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.comparison.cells import size_of
from pipelines.runtime.console import plain_table
from wave.spec import TargetSpec


def show_cells(
    rows: Sequence[Mapping[str, Any]],
    reach: Mapping[str, Sequence[str | None]],
    sizes: Sequence[TargetSpec],
) -> None:
    """Print one line per method and step, one column per size: mean accuracy over seeds.

    The spread over seeds stands behind it as +-. ``reach`` says why a method has no value.
    """
    console, table = plain_table("method", "steps", *(size.name for size in sizes))
    for method, reasons in reach.items():
        mine = [row for row in rows if row["method"] == method]
        measured = sorted({row["steps"] for row in mine})
        for steps in measured or ["-"]:  # a method that reaches no size still has its line
            cells: list[str] = []
            for size, reason in zip(sizes, reasons, strict=True):
                here = [r for r in mine if (size_of(r), r["steps"]) == (size, steps)]
                cells.append(_score([r["accuracy"] for r in here]) or reason or "-")
            table.add_row(method, str(steps), *cells)
    console.print(table)


def _score(accuracies: Sequence[float]) -> str:
    if not accuracies:
        return ""
    mean = f"{statistics.mean(accuracies):.1%}"
    return f"{mean} +-{statistics.stdev(accuracies):.1%}" if len(accuracies) > 1 else mean
