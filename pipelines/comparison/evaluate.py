"""Methods x sizes x seeds x data sets under one budget, as Tune trials; a finished cell is never done twice."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray import tune

from pipelines.ancestors.source import pinned
from pipelines.comparison.cell import run_cell
from pipelines.comparison.cells import Cell
from pipelines.comparison.checks import check_held_out, check_transfer
from pipelines.comparison.grid import Grid
from pipelines.comparison.results_log import Book, ready
from pipelines.comparison.starting_points import Stages, tuner
from pipelines.comparison.tables import show_cells
from pipelines.comparison.variants import variants
from pipelines.config.comparison import Study
from pipelines.config.experiment import Experiment, load, resolved
from pipelines.data.batches import Arrays
from pipelines.data.convert.convert import prepared
from pipelines.data.dataset import Dataset, Split
from pipelines.data.transforms import resized
from pipelines.registry.runs import Status
from pipelines.registry.store import open_store
from pipelines.runtime.console import say
from pipelines.runtime.files import write_text
from pipelines.runtime.ray_session import session
from pipelines.runtime.tune_progress import Count, reason
from pipelines.runtime.workspace import Workspace
from pipelines.stages import capacity, preflight
from pipelines.stages.ancestor import obtain
from wave.errors import WaveError
from wave.family import Family

SETTINGS = "comparison.toml"
"""The resolved settings of a comparison, in its output folder."""


def evaluate(file: str, overrides: Sequence[str]) -> int:
    """Run every cell of ``[evaluate]`` that is not in the results file yet and print the tables; 0 if all are there.

    Ancestor, templates and the rivals' stages 1 are made first when missing. In each study a method's learning rate is
    the one that does best on the data set's held-out images, at the first size it reaches. Raises :class:`WaveError`.
    """
    experiment = load(file, overrides)
    if not experiment.evaluate.studies:
        raise WaveError(f"{file}: has no [[evaluate.studies]]; fashion_mnist.toml shows some")
    experiment = pinned(experiment)
    experiments = variants(experiment)
    workspace = Workspace.open(experiment.output)
    with contextlib.ExitStack() as held:
        held.enter_context(workspace.lock())
        dataset = prepared(experiment.data, say)
        others = {s.name: prepared(s.data, say) for s in experiment.evaluate.studies if s.data is not None}
        found = preflight.check(experiment, dataset, workspace)
        family = Family.of(found.model)
        capacity.check(experiment, family)
        capacity.check_cells(experiment)
        preflight.check_comparison(experiments, family, dataset.num_rows("train"))
        check_transfer(dataset, others)
        for study in experiment.evaluate.studies:
            check_held_out(experiment, study, others.get(study.name, dataset))
        book = Book(results_path(experiment, workspace), experiments)
        ready(book.path)
        write_text(workspace.root / SETTINGS, resolved(experiment))
        book.store = open_store(experiment.mlflow.tracking_uri, experiment.mlflow.experiment, Path.cwd())
        held.enter_context(session(experiment.cluster))
        origin = obtain(experiment, dataset, workspace, found)
        comparison = Comparison(book, Stages(experiments, workspace, dataset, family, origin))
        failed: dict[str, str] = {}
        status: Status = "KILLED"
        try:
            failed = comparison.run([(s, others.get(s.name, dataset)) for s in experiment.evaluate.studies])
            status = "FAILED" if failed else "FINISHED"
        finally:
            book.close(status)
    if failed:
        cell, why = next(iter(failed.items()))
        raise WaveError(f"{len(failed)} cells failed, {cell} first: {why}; the same command again tries only these")
    return 0


def results_path(experiment: Experiment, workspace: Workspace) -> Path:
    """Where rows are kept: the file that is named, or one in the output folder."""
    named = experiment.evaluate.results
    return Path(named) if named else workspace.root / "evaluation.jsonl"


class Comparison:
    """The studies of one experiment: what has to be trained first, then the cells."""

    def __init__(self, book: Book, stages: Stages) -> None:
        self.book, self.stages, self.dataset, self.family = book, stages, stages.dataset, stages.family
        self.experiment = book.experiments[""]
        self.arrays: dict[Path, Arrays] = {}

    def run(self, studies: Sequence[tuple[Study, Dataset]]) -> dict[str, str]:
        """All cells of all studies on their data sets, a table printed for each; returns why cells failed.

        First what chooses learning rates, then the rest, and each data set's in one go.
        """
        rates = self.experiment.evaluate.learning_rates
        grids = [(Grid(s, self.family.size, rates, d.path.name, d is not self.dataset), d) for s, d in studies]
        trials = [c for grid, _ in grids if len(grid.rates) > 1 for cells in grid.trials().values() for c in cells]
        failed = self._fan_out("learning rates", trials, grids)
        chosen = [grid.cells(grid.best(self.book)) for grid, _ in grids]
        together = [c for cells in chosen for c in cells]
        failed |= self._fan_out("cells", together, grids)
        added = self.book.log_kept([*trials, *together])
        if added:
            say(f"mlflow: {added} cells of {self.book.path} logged that were not there")
        for (grid, dataset), cells in zip(grids, chosen, strict=True):
            say(f"study {grid.study.name}, data {dataset.path.name}:")
            show_cells(self.book.rows(cells), grid.reach, grid.sizes)
        return failed

    def _fan_out(self, what: str, cells: Sequence[Cell], grids: Sequence[tuple[Grid, Dataset]]) -> dict[str, str]:
        datasets = {dataset.path.name: dataset for _, dataset in grids}
        failed: dict[str, str] = {}
        for name, dataset in datasets.items():
            unique = {self.book.key(c): c for c in cells if c.dataset == name}
            todo = {key: cell for key, cell in unique.items() if key not in self.book.kept}
            text = f"{name}, {what}: {len(unique)}, {len(unique) - len(todo)} already there, {len(todo)} to do"
            if unique:
                say(text)
            if todo:
                failed |= self._do(f"{name}, {what}", dataset, todo)
        return failed

    def _do(self, what: str, dataset: Dataset, todo: Mapping[str, Cell]) -> dict[str, str]:
        methods = {c.method for c in todo.values()}
        self.stages.prepare(methods)
        places = {m: self.stages.place(m, dataset) for m in methods}
        facts = {m: self.stages.facts(m) for m in methods}

        def trial(config: dict[str, Any], arrays: Arrays) -> None:
            one = Cell(**{**config["cell"], "steps": tuple(config["cell"]["steps"])})
            tune.report({"rows": run_cell(places[one.method], arrays, one)})

        configs = [{"cell": asdict(cell), "name": str(cell), "key": key} for key, cell in todo.items()]
        count = Count(
            what,
            len(todo),
            lambda c: c["run"]["name"],
            lambda c, r: self.book.keep(todo[c["run"]["key"]], r.get("rows"), facts[c["run"]["cell"]["method"]]),
        )
        storage, arrays = self.stages.workspace.ray, self._arrays(dataset)
        results = tuner(
            storage, lambda c, arrays: trial(c["run"], arrays), arrays, configs, count, self.experiment.evaluate
        ).fit()
        return {r.config["run"]["name"]: reason(r.error) for r in results if r.error is not None and r.config}

    def _arrays(self, dataset: Dataset) -> Arrays:
        if dataset.path not in self.arrays:
            self.arrays[dataset.path] = arrays_of(self.experiment, dataset, self.family.size.img_size or 0)
        return self.arrays[dataset.path]


def arrays_of(experiment: Experiment, dataset: Dataset, side: int) -> Arrays:
    """Images of ``side`` pixels and labels of every split, by names like ``train_images``."""
    rules = experiment.evaluate
    limits: dict[Split, int] = {"train": rules.train_images, "test": rules.test_images, "held_out": rules.test_images}
    arrays: Arrays = {}
    for split, limit in limits.items():
        if dataset.num_rows(split):
            images, labels = dataset.arrays(split, limit=limit or None, seed=experiment.seed)
            arrays |= {f"{split}_images": resized(images, side), f"{split}_labels": labels}
    return arrays
