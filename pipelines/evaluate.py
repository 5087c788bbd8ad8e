"""Methods x sizes x seeds under one budget, as Tune trials; a finished cell is kept at once and never done twice."""

import contextlib
import datetime
import json
import os
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune
from ray.tune import RunConfig, TuneConfig, Tuner

from wave.baselines import BASELINES
from wave.errors import WaveError
from wave.spec import TargetSpec
from wave.storage import Templates
from wave.vit import Family

from . import ancestor, distil, preflight
from .cell import OURS, Cell, rival_file, run_cell, train_rival, unreachable
from .config import Experiment, load
from .convert import prepared
from .data import Dataset, stratified
from .initialise import reason
from .progress import Count
from .results import show_cells
from .session import say, session
from .trial import Arrays
from .workspace import Workspace, key_of


def evaluate(file: str, overrides: Sequence[str]) -> int:
    """Run every cell of ``[evaluate]`` that is not in the results file yet and print the table; 0 if all are there.

    Ancestor and templates are made first when missing. Each method's learning rate is the one of the grid that does
    best on a held-out tenth of the training set, at its first size. Raises :class:`WaveError`.
    """
    experiment = load(file, overrides)
    rules, workspace = experiment.evaluate, Workspace.open(experiment.output)
    for method in rules.methods:
        if method != OURS and method not in BASELINES:
            raise WaveError(f"evaluate.methods: {method!r} is unknown; known are {', '.join([OURS, *BASELINES])}")
    with contextlib.ExitStack() as held:
        held.enter_context(workspace.lock())
        dataset = prepared(experiment.data, say)
        found = preflight.check(experiment, dataset, workspace)
        preflight.check_machine(experiment, Family.of(found.model))
        held.enter_context(session(experiment.cluster))
        origin = ancestor.obtain(experiment, dataset, workspace, found)
        stage1 = distil.distil(experiment, dataset, workspace, origin)
        source = Templates.load(workspace.templates).family.size
        kept = (
            rules.results
            if rules.results and rules.budget == "full"
            else workspace.root / f"evaluation-{rules.budget}.jsonl"
        )
        book = Book(Path(kept), experiment, origin, stage1)
        arrays = _arrays(experiment, dataset)
        _rivals(
            experiment,
            workspace,
            dataset,
            arrays,
            [m for m in rules.methods if m != OURS and BASELINES[m].stage1],
            book,
        )
        sizes = [TargetSpec(size.embed_dim, size.depth) for size in rules.sizes]
        reach = {m: [s for s in sizes if unreachable(m, source, s) is None] for m in rules.methods}
        trials = [
            Cell(m, s[0].embed_dim, s[0].depth, rules.seeds[0], lr, True)
            for m, s in reach.items()
            if s
            for lr in rules.learning_rates
        ]
        failed = _fan_out(experiment, workspace, dataset, arrays, book, trials if len(rules.learning_rates) > 1 else [])
        best = {m: book.best_rate(m, [c for c in trials if c.method == m]) for m, s in reach.items() if s}
        cells = [Cell(m, s.embed_dim, s.depth, seed, best[m]) for m in best for s in reach[m] for seed in rules.seeds]
        failed |= _fan_out(experiment, workspace, dataset, arrays, book, cells)
    show_cells(book.rows(cells), {m: [unreachable(m, source, s) for s in sizes] for m in rules.methods}, sizes)
    if failed:
        cell, why = next(iter(failed.items()))
        raise WaveError(f"{len(failed)} cells failed, {cell} first: {why}; the same command again tries only these")
    return 0


class Book:
    """The results file, one JSON object a line; a cell is in it under the key of everything that its rows depend on."""

    def __init__(self, path: Path, experiment: Experiment, origin: dict[str, Any], stage1: dict[str, Any]) -> None:
        self.path, self.rules = path, experiment.evaluate
        self.inputs = {True: [origin["key"], stage1["key"]], False: [origin["key"]]}
        self.kept: dict[str, list[dict[str, Any]]] = {}
        if path.is_file():
            for number, text in enumerate(path.read_text().splitlines(), 1):
                try:
                    row = json.loads(text)
                    self.kept.setdefault(row["key"], []).append(row)
                except (ValueError, KeyError, TypeError):
                    raise WaveError(f"{path}: line {number} is not a result; delete that line and run again") from None

    def key(self, cell: Cell) -> str:
        fixed = self.rules.model_dump(
            mode="json", include={"steps", "batch_size", "held_out", "train_images", "test_images"}
        )
        needs_stage1 = cell.method == OURS or BASELINES[cell.method].stage1 is not None
        return key_of("cell", asdict(cell), fixed, self.inputs[needs_stage1])

    def keep(self, cell: Cell, rows: Iterable[dict[str, Any]] | None) -> None:
        """Append a cell's rows in one write; once."""
        if not rows or self.key(cell) in self.kept:
            return
        about = {
            "key": self.key(cell),
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
            "date": str(datetime.date.today()),
        }
        full = [{**row, **about} for row in rows]
        self.kept[self.key(cell)] = full
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write("".join(json.dumps(row) + "\n" for row in full))
            file.flush()
            os.fsync(file.fileno())

    def rows(self, cells: Iterable[Cell]) -> list[dict[str, Any]]:
        return [row for cell in cells for row in self.kept.get(self.key(cell), [])]

    def best_rate(self, method: str, trials: Sequence[Cell]) -> float:
        """The learning rate with the best held-out accuracy at the end; the only one if there is one."""
        scores = {
            c.lr: max(self.kept[self.key(c)], key=lambda r: r["steps"])["accuracy"]
            for c in trials
            if self.key(c) in self.kept
        }
        return max(scores, key=lambda lr: scores[lr]) if scores else self.rules.learning_rates[0]


def _arrays(experiment: Experiment, dataset: Dataset) -> Arrays:
    rules = experiment.evaluate
    images, labels = dataset.arrays("train", limit=rules.train_images or None, seed=experiment.seed)
    held = np.zeros(len(labels), bool)
    held[stratified(labels, max(1, round(rules.held_out * len(labels))), experiment.seed)] = True
    test_images, test_labels = dataset.arrays("test", limit=rules.test_images or None, seed=experiment.seed)
    return {
        "train_images": images,
        "train_labels": labels,
        "test_images": test_images,
        "test_labels": test_labels,
        "fit_images": images[~held],
        "fit_labels": labels[~held],
        "held_out_images": images[held],
        "held_out_labels": labels[held],
    }


def _rivals(
    experiment: Experiment, workspace: Workspace, dataset: Dataset, arrays: Arrays, methods: list[str], book: Book
) -> None:
    """Train the stage 1 of every rival that has one and is not there yet."""
    keys = {m: key_of("rival", m, book.inputs[True]) for m in methods}
    todo = [m for m in methods if workspace.record(rival_file(workspace, m).parent, keys[m]) is None]
    if not todo:
        return
    settings, root, data = experiment.model_dump(mode="json"), str(workspace.root), str(dataset.path)

    def trial(config: dict[str, Any], arrays: Arrays) -> None:
        train_rival(settings, root, data, arrays, config["method"])
        tune.report({"done": 1})

    results = _tuner(
        trial,
        arrays,
        [{"method": m} for m in todo],
        workspace,
        Count("rivals' stage 1", len(todo), lambda c: c["method"]),
    ).fit()
    for result in results:
        if result.error is not None:
            raise WaveError(f"a rival's stage 1 failed: {reason(result.error)}")
    for method in todo:
        workspace.finish(rival_file(workspace, method).parent, keys[method], {"method": method})


def _fan_out(
    experiment: Experiment, workspace: Workspace, dataset: Dataset, arrays: Arrays, book: Book, cells: list[Cell]
) -> dict[str, str]:
    todo = [c for c in cells if book.key(c) not in book.kept]
    what = "held-out" if cells and cells[0].held_out else "test"
    say(f"evaluate: {len(cells)} {what} cells, {len(cells) - len(todo)} already there, {len(todo)} to do")
    if not todo:
        return {}
    settings, root, data = experiment.model_dump(mode="json"), str(workspace.root), str(dataset.path)

    def trial(config: dict[str, Any], arrays: Arrays) -> None:
        tune.report({"rows": run_cell(settings, root, data, arrays, Cell(**config["cell"]))})

    count = Count(
        "evaluate",
        len(todo),
        lambda c: str(Cell(**c["cell"])),
        lambda c, r: book.keep(Cell(**c["cell"]), r.get("rows")),
    )
    results = _tuner(trial, arrays, [{"cell": asdict(c)} for c in todo], workspace, count).fit()
    return {str(r.config["cell"]): reason(r.error) for r in results if r.error is not None and r.config is not None}


def _tuner(trial: Any, arrays: Arrays, configs: list[dict[str, Any]], workspace: Workspace, count: "Count") -> Tuner:
    return Tuner(
        tune.with_resources(tune.with_parameters(trial, arrays=arrays), {"cpu": 1}),
        param_space={key: tune.grid_search([c[key] for c in configs]) for key in configs[0]},
        tune_config=TuneConfig(reuse_actors=True),
        run_config=RunConfig(
            name=f"evaluate-{time.time_ns()}", storage_path=str(workspace.ray), verbose=0, callbacks=[count]
        ),
    )
