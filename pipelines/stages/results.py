"""What a run made: results.csv, results.json, and the table at the end."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.runtime.console import percent, plain_table, short_number
from pipelines.runtime.files import write_text

COLUMNS = (
    *("size", "embed_dim", "depth", "num_heads", "parameters", "macs", "scalers"),
    *("accuracy_before", "accuracy_after", "accuracy_scratch", "seconds", "alias"),
)


def write(root: Path, summary: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], failed: Mapping[str, str]) -> None:
    """``results.csv`` with a line a size, and ``results.json`` with the summary, the sizes and the failures too."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(root / "results.csv", text.getvalue())
    plain = [{c: row.get(c) for c in COLUMNS} for row in rows]
    write_text(root / "results.json", json.dumps({**summary, "sizes": plain, "failed": dict(failed)}, indent=2) + "\n")


def show(rows: Sequence[Mapping[str, Any]], failed: Mapping[str, str]) -> None:
    """The table; plain text when not on a terminal."""
    scratch = any(row.get("accuracy_scratch") is not None for row in rows)
    names = ["size", "parameters", "MACs", "scalers", "at step 0", "after training", "seconds", "registry alias"]
    console, table = plain_table(*names[:6], *(["from scratch"] if scratch else []), *names[6:])
    for row in rows:
        cells = [row["size"], short_number(row["parameters"]), short_number(row["macs"]), short_number(row["scalers"])]
        cells += [percent(row["accuracy_before"]), percent(row["accuracy_after"])]
        cells += [percent(row["accuracy_scratch"])] if scratch else []
        table.add_row(*cells, f"{row['seconds']:.1f}", row["alias"])
    console.print(table)
    for size, why in failed.items():
        console.print(f"{size} failed: {why}", markup=False, soft_wrap=True)
