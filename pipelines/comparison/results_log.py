"""Results log: the comparison's results file, one JSON object per line, and its MLflow runs.

A cell is written as soon as it is finished and never done twice.
"""

import datetime
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.comparison.cells import Cell, named
from pipelines.comparison.keys import cell_key
from pipelines.comparison.results_file import read_rows
from pipelines.config.experiment import Experiment
from pipelines.registry import runs
from pipelines.registry.store import Store
from pipelines.runtime.keys import key_of
from pipelines.runtime.provenance import machine


class ResultsLog:
    """The rows of finished cells, by the key of every setting that they depend on.

    Bits that differ from machine to machine are not part of a key, so committed results hold
    elsewhere.

    Args:
        path: The results file; it need not exist.
        experiments: Those of our method and its variants by name, "" for the comparison's own.
        store: Where finished cells are logged; None logs nothing.

    Raises:
        WaveError: For a line that is not a result, and for a file that cannot be read.
            :func:`pipelines.comparison.results_file.make_ready` tries whether it can be written.
    """

    def __init__(self, path: Path, experiments: Mapping[str, Experiment], store: Store | None = None) -> None:
        self.path, self.experiments, self.store = path, experiments, store
        self.parent: str | None = None
        self.kept: dict[str, list[dict[str, Any]]] = {}
        for row in read_rows(path):
            before = [r for r in self.kept.get(row["key"], []) if r["steps"] != row["steps"]]
            self.kept[row["key"]] = [*before, row]
        for key, rows in list(self.kept.items()):
            if _last(rows)["steps"] < rows[0].get("budget", 0):  # off while the cell was written
                del self.kept[key]

    def key(self, cell: Cell) -> str:
        """See :func:`pipelines.comparison.keys.cell_key`."""
        return cell_key(cell, self.experiments)

    def keep(
        self,
        cell: Cell,
        rows: Sequence[Mapping[str, Any]] | None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Append a cell's rows in one write, each with ``facts`` beside it, and log its run; once."""
        key = self.key(cell)
        if not rows or key in self.kept:
            return
        about = {
            **(facts or {}),
            "key": key,
            "machine": machine(),
            "date": str(datetime.date.today()),
        }
        full = [{**row, **about} for row in rows]
        self.kept[key] = full
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write("".join(json.dumps(row) + "\n" for row in full))
            file.flush()
            os.fsync(file.fileno())
        if self.store is not None:
            self._log(self.store, cell, key=key, rows=full)

    def log_kept(self, cells: Iterable[Cell]) -> int:
        """Log cells of the file that MLflow lacks, as in a clone or after a kill; return their number."""
        if self.store is None:
            return 0
        logged = runs.finished(self.store, self._batch(self.store))
        lacking: dict[str, Cell] = {}
        for cell in cells:
            key = self.key(cell)
            if key in self.kept and key not in logged:
                lacking[key] = cell
        for key, cell in lacking.items():
            self._log(self.store, cell, key=key, rows=self.kept[key])
        return len(lacking)

    def _batch(self, store: Store) -> str:
        own = self.experiments[""]
        if self.parent is None:
            batch = key_of("comparison", own.name, own.seed)
            title = f"{own.name}-comparison"
            self.parent = runs.batch_run(store, batch, title, {"name": own.name}, {})
        return self.parent

    def _log(self, store: Store, cell: Cell, *, key: str, rows: Sequence[Mapping[str, Any]]) -> None:
        metrics = {f"accuracy_{row['steps']}": float(row["accuracy"]) for row in rows}
        last = _last(rows)
        metrics |= {k: float(last[k]) for k in ("seconds", "images", "macs") if k in last}
        params = {k: v for k, v in named(cell).items() if k != "steps"}
        batch = self._batch(store)
        runs.size_run(store, batch, key, str(cell), params, metrics, {"kind": "cell"})

    def close(self, status: runs.Status) -> None:
        """End the comparison's MLflow run, if there is one."""
        if self.store is not None and self.parent is not None:
            runs.end_batch(self.store, self.parent, status)

    def rows(self, cells: Iterable[Cell]) -> list[dict[str, Any]]:
        """All rows of these cells."""
        return [row for cell in cells for row in self.kept.get(self.key(cell), [])]

    def best_rate(self, trials: Iterable[Cell]) -> float | None:
        """The learning rate with the best held-out accuracy at the end; None without any trial."""
        scores: dict[float, float] = {}
        for cell in trials:
            rows = self.kept.get(self.key(cell))
            if rows is not None:
                scores[cell.lr] = _last(rows)["accuracy"]
        return max(scores, key=lambda lr: scores[lr]) if scores else None


def _last(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """A cell's row after most steps."""
    return max(rows, key=lambda row: row["steps"])
