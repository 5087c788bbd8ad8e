"""The stages of a run in order: data, ancestor, templates, sizes; each does only what is missing."""

import datetime
import time
from collections.abc import Sequence
from pathlib import Path

from pipelines.ancestors.source import pinned
from pipelines.config.experiment import Experiment, load, resolved
from pipelines.data.convert.convert import prepared
from pipelines.data.dataset import Dataset
from pipelines.registry.runs import log_files
from pipelines.registry.store import open_store, registering, shown
from pipelines.runtime.console import say
from pipelines.runtime.files import write_text
from pipelines.runtime.provenance import git_commit, machine
from pipelines.runtime.ray_address import reachable
from pipelines.runtime.ray_session import session
from pipelines.runtime.workspace import Workspace
from pipelines.stages import capacity, distil, preflight, results
from pipelines.stages.ancestor import obtain
from pipelines.stages.initialise import initialise
from wave.errors import WaveError
from wave.family import Family


class Seconds(dict[str, float]):
    """How long this command took for each stage, rounded; next to nothing for one that was there already."""

    def __init__(self) -> None:
        super().__init__()
        self._last = time.perf_counter()

    def end(self, stage: str) -> None:
        """The stage that began when the last one ended has ended."""
        now = time.perf_counter()
        self[stage], self._last = round(now - self._last, 1), now


def data_of(experiment: Experiment) -> Dataset:
    """The experiment's data set, converted first when it is missing and ``data.convert`` says from what."""
    dataset = prepared(experiment.data, say)
    rows = [dataset.num_rows(split) for split in ("train", "test")]
    say(f"data: {rows[0]} training and {rows[1]} test images, {len(dataset.classes)} classes")
    return dataset


def run(file: str, overrides: Sequence[str], until: str = "initialise") -> int:
    """Run an experiment up to a stage and return the exit code: 0 when all that was asked for is there.

    The same call again continues: finished parts are recognised by their settings. Raises :class:`WaveError`.
    """
    experiment = load(file, overrides)
    reachable(experiment.cluster)
    workspace = Workspace.open(experiment.output)
    with workspace.lock():
        dataset = data_of(experiment)
        experiment = pinned(experiment)
        source = preflight.check_run(experiment, dataset, workspace)
        capacity.check_sizes(experiment, Family.of(source.model))
        store = open_store(experiment.mlflow.tracking_uri, experiment.mlflow.experiment, Path.cwd())
        with session(experiment.cluster), registering(store, experiment.mlflow.registered_model):
            write_text(workspace.root / "resolved.toml", resolved(experiment))
            seconds = Seconds()
            origin = obtain(experiment, dataset, workspace, source)
            seconds.end("ancestor")
            if until == "ancestor":
                return 0
            stage1 = distil.distil(experiment, dataset, workspace, origin)
            seconds.end("templates")
            if until == "distil":
                return 0
            outcome = initialise(experiment, dataset, workspace, stage1, store)
            seconds.end("sizes")
        summary = {
            "name": experiment.name,
            "date": str(datetime.date.today()),
            "git_commit": git_commit(),
            "machine": machine(),
            "seconds": seconds,
            "ancestor": {k: origin[k] for k in ("accuracy", "parameters")},
            "templates": {k: stage1[k] for k in ("accuracy", "parameters", "share", "exchanged", "digest")},
        }
        rows = list(outcome.values())
        results.write(workspace.root, summary, rows, outcome.failed)
        log_files(store, outcome.run, workspace.root / "results.csv", workspace.root / "results.json")
        results.show(rows, outcome.failed)
        where = f"{workspace.root}/results.csv, models in {workspace.root}/models"
        say(f"results: {where}, registry: {shown(store.tracking_uri)}")
    if outcome.failed:
        count = len(experiment.target_specs())
        raise WaveError(
            f"{len(outcome.failed)} of {count} sizes failed ({', '.join(outcome.failed)}); "
            + ("the others are registered, and " if len(outcome.failed) < count else "")
            + "the same command again tries only these"
        )
    return 0
