"""What a run made: results.csv, results.json, and the table at the end."""

import csv
import io
import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from pipelines.comparison.cell import size_of
from pipelines.runtime.workspace import write_text

COLUMNS = (
    *("size", "embed_dim", "depth", "num_heads", "parameters", "macs", "scalers"),
    *("accuracy_before", "accuracy_after", "accuracy_scratch", "seconds", "alias"),
)


def machine() -> str:
    """What results say of the machine that made them."""
    gpus = "".join(f", {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count()))
    return f"{platform.machine()}, {os.cpu_count()} CPUs{gpus}"


def write(root: Path, summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], failed: Mapping[str, str]) -> None:
    """``results.csv`` with a line a size, and ``results.json`` with the summary, the sizes and the failures too."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(root / "results.csv", text.getvalue())
    plain = [{c: row.get(c) for c in COLUMNS} for row in rows]
    write_text(root / "results.json", json.dumps({**summary, "sizes": plain, "failed": dict(failed)}, indent=2) + "\n")


def _table(*names: str) -> tuple[Console, Table]:
    """A console and a table that are plain text, without colours or boxes, when not on a terminal."""
    console = Console(width=None if Console().is_terminal else 130, highlight=False)
    table = Table(box=box.HEAVY_HEAD if console.is_terminal else None)
    for name in names:
        table.add_column(
            name, justify="left" if name in ("size", "stage", "method", "model", "registry alias") else "right"
        )
    return console, table


def show(rows: Sequence[Mapping[str, Any]], failed: Mapping[str, str]) -> None:
    """The table; plain text when not on a terminal."""
    scratch = any(row.get("accuracy_scratch") is not None for row in rows)
    names = ["size", "parameters", "MACs", "scalers", "at step 0", "after training", "seconds", "registry alias"]
    console, table = _table(*names[:6], *(["from scratch"] if scratch else []), *names[6:])
    for row in rows:
        cells = [row["size"], _short(row["parameters"]), _short(row["macs"]), _short(row["scalers"])]
        cells += [_percent(row["accuracy_before"]), _percent(row["accuracy_after"])]
        cells += [_percent(row["accuracy_scratch"])] if scratch else []
        table.add_row(*cells, f"{row['seconds']:.1f}", row["alias"])
    console.print(table)
    for size, why in failed.items():
        console.print(f"{size} failed: {why}", markup=False, soft_wrap=True)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def scaled(value: float) -> tuple[float, str]:
    """A number below 1,000 and the letter of what it counts, "" for ones."""
    for limit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return value / limit, letter
    return value, ""


def _short(value: float) -> str:
    number, letter = scaled(value)
    return f"{number:.1f}{letter}" if letter else str(value)


def show_models(rows: Sequence[Any]) -> None:
    """The registry as a table."""
    console, table = _table("model", "version", "parameters", "at step 0", "after training", "from scratch")
    for row in rows:
        scores = [row.tags.get(f"accuracy_{when}") for when in ("before", "after", "scratch")]
        cells = [_percent(None if s is None else float(s)) for s in scores]
        table.add_row(f"{row.registered_model}@{row.alias}", str(row.version), row.tags.get("parameters", "-"), *cells)
    console.print(table)


def show_plan(sizes: Sequence[tuple[str, int, int, int]], stages: Sequence[tuple[str, int, float, float]]) -> None:
    """The sizes (name, parameters, MACs, scalers) and the stages (name, image passes, MACs, minutes) of a plan."""
    console, table = _table("size", "parameters", "MACs", "scalers")
    for name, *numbers in sizes:
        table.add_row(name, *map(_short, numbers))
    console.print(table)
    console, table = _table("stage", "image passes", "MACs", "minutes here")
    for name, images, work, minutes in stages:
        table.add_row(name, _short(images), _short(work), f"{minutes:.1f}")
    table.add_row("all", "", "", f"{sum(stage[3] for stage in stages):.1f}")
    console.print(table)


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
