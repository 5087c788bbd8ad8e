"""The command ``evaluate``: what a comparison needs, checked and made in order, then its studies."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from pipelines.ancestors.source import pinned
from pipelines.comparison.checks import check_held_out, check_transfer
from pipelines.comparison.comparison import Comparison
from pipelines.comparison.results_file import make_ready
from pipelines.comparison.results_log import ResultsLog
from pipelines.comparison.starting_points import StartingPoints
from pipelines.comparison.variants import variants
from pipelines.config.experiment import Experiment, load, resolved
from pipelines.data.convert.convert import prepared
from pipelines.registry.runs import Status
from pipelines.registry.store import open_store
from pipelines.runtime.console import say
from pipelines.runtime.files import write_text
from pipelines.runtime.ray_session import session
from pipelines.runtime.workspace import Workspace
from pipelines.stages import capacity, preflight
from pipelines.stages.ancestor import obtain
from wave.errors import WaveError
from wave.family import Family

SETTINGS = "comparison.toml"
"""The resolved settings of a comparison, in its output folder."""


def evaluate(file: str, overrides: Sequence[str]) -> int:
    """Run every cell of ``[evaluate]`` that the results log lacks and print the tables.

    The ancestor, templates and the baselines' stage 1 are made first when missing. In each study a
    method's learning rate is the one that does best on the data set's held-out images, at the first
    size that the method reaches. Returns 0 when all cells are there; raises :class:`WaveError`.
    """
    experiment = load(file, overrides)
    studies = experiment.evaluate.studies
    if not studies:
        raise WaveError(f"{file}: has no [[evaluate.studies]]; fashion_mnist_comparison.toml shows some")
    experiment = pinned(experiment)
    experiments = variants(experiment)
    workspace = Workspace.open(experiment.output)
    with contextlib.ExitStack() as held:
        held.enter_context(workspace.lock())
        dataset = prepared(experiment.data, say)
        others = {s.name: prepared(s.data, say) for s in studies if s.data is not None}
        source = preflight.check_run(experiment, dataset, workspace)
        family = Family.of(source.model)
        capacity.check_sizes(experiment, family)
        capacity.check_cells(experiment)
        preflight.check_comparison(experiments, family, rows=dataset.num_rows("train"))
        check_transfer(dataset, others)
        for study in studies:
            check_held_out(experiment, study, others.get(study.name, dataset))
        log = ResultsLog(results_path(experiment, workspace), experiments)
        make_ready(log.path)
        write_text(workspace.root / SETTINGS, resolved(experiment))
        mlflow = experiment.mlflow
        log.store = open_store(mlflow.tracking_uri, mlflow.experiment, Path.cwd())
        held.enter_context(session(experiment.cluster))
        origin = obtain(experiment, dataset, workspace, source)
        points = StartingPoints(experiments, workspace, dataset=dataset, family=family, origin=origin)
        failed: dict[str, str] = {}
        status: Status = "KILLED"
        try:
            found = [(study, others.get(study.name, dataset)) for study in studies]
            failed = Comparison(log, points).run(found)
            status = "FAILED" if failed else "FINISHED"
        finally:
            log.close(status)
    if failed:
        cell, why = next(iter(failed.items()))
        raise WaveError(f"{len(failed)} cells failed, {cell} first: {why}; the same command again tries only these")
    return 0


def results_path(experiment: Experiment, workspace: Workspace) -> Path:
    """Where rows are kept: the file that the settings name, or one in the output folder."""
    named = experiment.evaluate.results
    return Path(named) if named else workspace.root / "evaluation.jsonl"
