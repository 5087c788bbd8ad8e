"""Book: the comparison's results file, one JSON object a line; a finished cell is kept at once and never done twice."""

import datetime
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.comparison.cells import Cell, named
from pipelines.comparison.keys import cell_key
from pipelines.config.experiment import Experiment
from pipelines.registry import runs
from pipelines.registry.store import Store
from pipelines.runtime.keys import key_of
from pipelines.runtime.provenance import machine
from wave.errors import WaveError
from wave.json_file import JsonError, parse_json

_BEGIN = '{"method": '
"""Of every line that is written here."""


class Book:
    """The results file and the MLflow runs of its cells.

    A cell is in it under the key of every setting that its rows depend on; bits that differ from machine to machine
    are not among them, so committed results hold elsewhere. ``experiments`` are those of our method and its variants,
    by name; "" is the comparison's own. Without a store nothing is logged. Raises :class:`WaveError` for a line that is
    not a result and for a file that cannot be read; :func:`ready` tries whether it can be written.
    """

    def __init__(self, path: Path, experiments: Mapping[str, Experiment], store: Store | None = None) -> None:
        self.path, self.experiments, self.store = path, experiments, store
        self.parent: str | None = None
        self.kept: dict[str, list[dict[str, Any]]] = {}
        for row in _rows(path):
            before = [r for r in self.kept.get(row["key"], []) if r["steps"] != row["steps"]]
            self.kept[row["key"]] = [*before, row]
        cut = [k for k, rows in self.kept.items() if max(r["steps"] for r in rows) < rows[0].get("budget", 0)]
        for key in cut:  # off while the cell was written
            del self.kept[key]

    def key(self, cell: Cell) -> str:
        """See :func:`pipelines.comparison.keys.cell_key`."""
        return cell_key(cell, self.experiments)

    def keep(
        self, cell: Cell, rows: Sequence[Mapping[str, Any]] | None, facts: Mapping[str, Any] | None = None
    ) -> None:
        """Append a cell's rows in one write, each with ``facts`` beside it, and log its MLflow run; once."""
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
            self._log(self.store, cell, key, full)

    def log_kept(self, cells: Iterable[Cell]) -> int:
        """Log cells of the results file that MLflow lacks, as in a clone or after a kill; how many there were."""
        if self.store is None:
            return 0
        logged = runs.finished(self.store, self._batch(self.store))
        lacking = {key: c for c in cells if (key := self.key(c)) in self.kept and key not in logged}
        for key, cell in lacking.items():
            self._log(self.store, cell, key, self.kept[key])
        return len(lacking)

    def _batch(self, store: Store) -> str:
        own = self.experiments[""]
        if self.parent is None:
            batch = key_of("comparison", own.name, own.seed)
            self.parent = runs.batch_run(store, batch, f"{own.name}-comparison", {"name": own.name}, {})
        return self.parent

    def _log(self, store: Store, cell: Cell, key: str, rows: Sequence[Mapping[str, Any]]) -> None:
        metrics = {f"accuracy_{row['steps']}": float(row["accuracy"]) for row in rows}
        last = _last(rows)
        metrics |= {name: float(last[name]) for name in ("seconds", "images", "macs") if name in last}
        params = {k: v for k, v in named(cell).items() if k != "steps"}
        runs.size_run(store, self._batch(store), key, str(cell), params, metrics, {"kind": "cell"})

    def close(self, status: runs.Status) -> None:
        """End the comparison's MLflow run, if there is one."""
        if self.store is not None and self.parent is not None:
            runs.end_batch(self.store, self.parent, status)

    def rows(self, cells: Iterable[Cell]) -> list[dict[str, Any]]:
        """What is kept of these cells."""
        return [row for cell in cells for row in self.kept.get(self.key(cell), [])]

    def best_rate(self, trials: Sequence[Cell]) -> float | None:
        """The learning rate with the best held-out accuracy at the end; None where nothing is kept."""
        scores = {
            cell.lr: _last(self.kept[self.key(cell)])["accuracy"] for cell in trials if self.key(cell) in self.kept
        }
        return max(scores, key=lambda lr: scores[lr]) if scores else None


def _last(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """A cell's row after most steps."""
    return max(rows, key=lambda row: row["steps"])


def ready(path: Path) -> None:
    """Make a results file ready to be added to: a line that was cut off while it was written is taken out of it, and
    one that lacks its end gets it. Raises :class:`WaveError` for a file that cannot be written."""
    there = path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            file.seek(0)
            whole, _, last = file.read().rpartition(b"\n")
            if _cut_off(last.decode("utf-8", "replace")):
                file.truncate(len(whole) + 1 if whole else 0)
            elif last:
                file.write(b"\n")
        if not there:
            path.unlink()
    except OSError as error:
        raise WaveError(f"evaluate.results={path}: cannot be written: {error.strerror}; name another file") from None


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The file's rows, none if there is no file; a last line that was cut off is not one."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    except OSError as error:
        raise WaveError(f"evaluate.results={path}: cannot be read: {error.strerror}; name another file") from None
    except UnicodeDecodeError:
        raise WaveError(f"evaluate.results={path}: is not text; name another file") from None
    for number, line in enumerate(lines, 1):
        if number == len(lines) and _cut_off(line):
            return
        try:
            row = parse_json(line, path)
            if not all(isinstance(row[k], int | float) for k in ("steps", "accuracy", "seconds")):
                raise TypeError("not a number")
            row["key"] = str(row["key"])
        except (ValueError, KeyError, TypeError):
            raise WaveError(f"{path}: line {number} is not a result; delete that line and run again") from None
        yield row


def _cut_off(line: str) -> bool:
    """Whether a last line is the beginning of one of ours."""
    if not line or line.endswith("\n") or not (line.startswith(_BEGIN) or _BEGIN.startswith(line)):
        return False
    try:
        parse_json(line, "")
    except JsonError:
        return True
    return False
