"""Comparison: the studies of one experiment as Tune trials, one per cell that is not there yet."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray import tune

from pipelines.comparison.cells import Cell
from pipelines.comparison.results_log import ResultsLog
from pipelines.comparison.run_cell import run_cell
from pipelines.comparison.starting_points import StartingPoints, tuner
from pipelines.comparison.study_cells import StudyCells
from pipelines.comparison.tables import show_cells
from pipelines.config.comparison import Study
from pipelines.config.experiment import Experiment
from pipelines.data.batches import Arrays
from pipelines.data.dataset import Dataset, Split
from pipelines.data.transforms import resized
from pipelines.runtime.console import say
from pipelines.runtime.tune_progress import Count, reason


class Comparison:
    """Runs studies: first the trials that choose learning rates, then the cells."""

    def __init__(self, log: ResultsLog, points: StartingPoints) -> None:
        self.log, self.points = log, points
        self.dataset, self.family = points.dataset, points.family
        self.experiment = log.experiments[""]
        self.arrays: dict[Path, Arrays] = {}

    def run(self, studies: Sequence[tuple[Study, Dataset]]) -> dict[str, str]:
        """Run all cells of all studies on their data sets, print a table for each, and return by
        cell why any of them failed. The cells of one data set run together."""
        datasets = {dataset.path.name: dataset for _, dataset in studies}
        every = [self._cells_of(study, dataset) for study, dataset in studies]
        trials = [cell for one in every for cell in one.needed_trials()]
        failed = self._run_missing("learning rates", trials, datasets)
        measured = [one.measured(one.best_rates(self.log)) for one in every]
        together = [cell for cells in measured for cell in cells]
        failed |= self._run_missing("cells", together, datasets)
        added = self.log.log_kept([*trials, *together])
        if added:
            say(f"mlflow: {added} cells of {self.log.path} logged that were not there")
        for one, cells in zip(every, measured, strict=True):
            say(f"study {one.study.name}, data {one.dataset}:")
            show_cells(self.log.rows(cells), one.reach, one.sizes)
        return failed

    def _cells_of(self, study: Study, dataset: Dataset) -> StudyCells:
        return StudyCells(
            study,
            self.family.size,
            rates=self.experiment.evaluate.learning_rates,
            dataset=dataset.path.name,
            transfer=dataset is not self.dataset,
        )

    def _run_missing(self, what: str, cells: Sequence[Cell], datasets: Mapping[str, Dataset]) -> dict[str, str]:
        failed: dict[str, str] = {}
        for name, dataset in datasets.items():
            unique = {self.log.key(c): c for c in cells if c.dataset == name}
            todo = {key: cell for key, cell in unique.items() if key not in self.log.kept}
            there = len(unique) - len(todo)
            if unique:
                say(f"{name}, {what}: {len(unique)}, {there} already there, {len(todo)} to do")
            if todo:
                failed |= self._run(f"{name}, {what}", dataset, todo)
        return failed

    def _run(self, what: str, dataset: Dataset, todo: Mapping[str, Cell]) -> dict[str, str]:
        """Run cells, by key, on one data set and keep their rows; return by cell why any failed."""
        methods = {c.method for c in todo.values()}
        self.points.prepare(methods)
        places = {m: self.points.place(m, dataset) for m in methods}
        facts = {m: self.points.facts(m) for m in methods}

        def trial(config: dict[str, Any], arrays: Arrays) -> None:
            fields = config["run"]["cell"]
            cell = Cell(**{**fields, "steps": tuple(fields["steps"])})
            tune.report({"rows": run_cell(places[cell.method], arrays, cell)})

        def name(config: dict[str, Any]) -> str:
            return config["run"]["name"]

        def keep(config: dict[str, Any], result: dict[str, Any]) -> None:
            cell = todo[config["run"]["key"]]
            self.log.keep(cell, result.get("rows"), facts[cell.method])

        configs: list[dict[str, Any]] = []
        for key, cell in todo.items():
            configs.append({"cell": asdict(cell), "name": str(cell), "key": key})
        trials = tuner(
            self.points.workspace.ray,
            trial,
            arrays=self._arrays(dataset),
            configs=configs,
            count=Count(what, len(todo), name=name, keep=keep),
            rules=self.experiment.evaluate,
        )
        failed: dict[str, str] = {}
        for result in trials.fit():
            if result.error is not None and result.config:
                failed[name(result.config)] = reason(result.error)
        return failed

    def _arrays(self, dataset: Dataset) -> Arrays:
        if dataset.path not in self.arrays:
            side = self.family.size.img_size or 0
            self.arrays[dataset.path] = arrays_of(self.experiment, dataset, side=side)
        return self.arrays[dataset.path]


def arrays_of(experiment: Experiment, dataset: Dataset, *, side: int) -> Arrays:
    """Images of ``side`` pixels and labels of every split, by names like ``train_images``."""
    rules, test = experiment.evaluate, experiment.evaluate.test_images
    limits: dict[Split, int] = {"train": rules.train_images, "test": test, "held_out": test}
    arrays: Arrays = {}
    for split, limit in limits.items():
        if dataset.num_rows(split):
            images, labels = dataset.arrays(split, limit=limit or None, seed=experiment.seed)
            arrays[f"{split}_images"] = resized(images, side)
            arrays[f"{split}_labels"] = labels
    return arrays
