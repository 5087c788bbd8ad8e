"""Starting points: what a comparison's methods start from, made first and once.

These are the templates of our method and its variants, and the stage 1 of each baseline that has one.
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import RunConfig, TuneConfig, Tuner

from pipelines.comparison.baselines import baseline_file, train_baseline
from pipelines.comparison.cells import OURS, Place, is_ours
from pipelines.comparison.keys import BASELINE_STAGE1_DEPENDS_ON
from pipelines.config.comparison import Evaluate
from pipelines.config.experiment import Experiment
from pipelines.config.stage1 import Distil
from pipelines.data.batches import Arrays
from pipelines.data.dataset import Dataset
from pipelines.runtime.files import write_text
from pipelines.runtime.keys import key_of, settings_at
from pipelines.runtime.threads import side_by_side
from pipelines.runtime.tune_progress import Count, reason
from pipelines.runtime.workspace import Workspace
from pipelines.stages import distil
from pipelines.stages.cost import baseline_cost, stage1_cost
from wave.baselines import BASELINES
from wave.errors import WaveError
from wave.family import Family
from wave.json_file import JsonError, read_json
from wave.measure import num_parameters


class StartingPoints:
    """Where each method finds what it starts from.

    Args:
        experiments: Those of our method and its variants by name, "" for the comparison's own.
        workspace: The comparison's folder.
        dataset: The ancestor's data set.
        family: The ancestor's family.
        origin: The ancestor's record.
    """

    def __init__(
        self,
        experiments: Mapping[str, Experiment],
        workspace: Workspace,
        *,
        dataset: Dataset,
        family: Family,
        origin: dict[str, Any],
    ) -> None:
        self.experiments, self.workspace, self.dataset = experiments, workspace, dataset
        self.family, self.origin = family, origin
        self.shares: dict[str, dict[str, float]] = {}

    def place(self, method: str, dataset: Dataset) -> Place:
        """Where cells of a method on a data set find things."""
        experiment = self.experiments.get(method, self.experiments[""])
        owner = self.owners.get(method, OURS)
        workspace = self.workspace if owner == OURS else self.workspace.variant(owner)
        return Place(experiment.model_dump(mode="json"), workspace, str(dataset.path), dataset.shape[1])

    @cached_property
    def owners(self) -> dict[str, str]:
        """See :func:`template_owners`."""
        return template_owners(self.experiments, self.origin)

    def prepare(self, methods: set[str]) -> None:
        """Make what these methods start from and what is not there yet, as much at once as there is
        room for. Raises :class:`WaveError`."""
        ours = sorted(m for m in methods if is_ours(m))
        makers = {self.owners[m]: m for m in ours}
        works = [partial(self._distil, m) for m in makers.values()]
        side_by_side(works, room(self.experiments[""].distil))
        for method in ours:
            if method not in makers.values():
                self._distil(method)
        self._train_baselines(sorted(methods - set(ours)))

    def _train_baselines(self, methods: Sequence[str]) -> None:
        settings = settings_at(self.experiments[""], BASELINE_STAGE1_DEPENDS_ON)
        missing: dict[str, str] = {}
        for method in methods:
            if BASELINES[method].stage1 is None:
                continue
            key = key_of("baseline", method, self.origin["key"], settings)
            folder = baseline_file(self.workspace, method).parent
            if self.workspace.record(folder, key) is None:
                missing[method] = key
        if not missing:
            return
        place = self.place(OURS, self.dataset)

        def trial(config: dict[str, Any], arrays: Arrays) -> None:
            train_baseline(place, config["run"])
            tune.report({"done": 1})

        count = Count("baselines' stage 1", len(missing), name=lambda config: config["run"])
        rules = self.experiments[""].evaluate
        trials = tuner(self.workspace.ray, trial, arrays={}, configs=list(missing), count=count, rules=rules)
        for result in trials.fit():
            if result.error is not None:
                raise WaveError(f"a baseline's stage 1 failed: {reason(result.error)}")
        for method, key in missing.items():
            folder = baseline_file(self.workspace, method).parent
            self.workspace.finish(folder, key, {"method": method})

    def _distil(self, method: str) -> None:
        place, own = self.place(method, self.dataset), self.experiments[method]
        place.workspace.root.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        done = distil.distil(own, self.dataset, place.workspace, self.origin)
        self.shares[method] = {"share": done["share"], "share_all": done["exchanged"]}
        seconds = round(time.perf_counter() - start, 1)
        note = place.workspace.root / "stage1.json"
        if _noted(note).get("key") != done["key"]:
            kept = {"method": method, "seconds": seconds, **done}
            write_text(note, json.dumps(kept, indent=2) + "\n")

    def facts(self, method: str) -> dict[str, Any]:
        """What every row of a method says of where it starts. Call it after :meth:`prepare`.

        Of a method with a stage 1 that is what it costs (image passes, and multiply-accumulates with
        the teacher's) and what it hands on, as parts of the ancestor's parameters: ``share`` of the
        templates alone, ``share_all`` with scalers and small tensors.
        """
        known: dict[str, Any] = {"ancestor_dataset": self.dataset.path.name}
        own = self.experiments.get(method, self.experiments[""])
        if is_ours(method):
            images, work = stage1_cost(own, self.family, self.dataset)
            return {**known, **self.shares[method], "stage1_images": images, "stage1_macs": work}
        make = BASELINES[method].stage1
        if make is None:
            return known
        images, work = baseline_cost(own, self.family, self.dataset)
        share = num_parameters(make(self.family)) / self.origin["parameters"]
        return {**known, "share_all": share, "stage1_images": images, "stage1_macs": work}


def _noted(path: Path) -> dict[str, Any]:
    try:
        noted = read_json(path)
    except (OSError, JsonError):
        return {}
    return noted if isinstance(noted, dict) else {}


def room(rules: Distil) -> int:
    """How many trainings by these rules the Ray session can run at once, at least one."""
    has = ray.cluster_resources()
    each = {"GPU": float(rules.use_gpu), **rules.resources_per_worker}
    workers = rules.worker_range[1]
    fits = [int(has.get(name, 0) / (amount * workers)) for name, amount in each.items() if amount]
    return max(1, min(fits))


def template_owners(experiments: Mapping[str, Experiment], origin: Mapping[str, Any]) -> dict[str, str]:
    """Each method of ours -> the first one whose templates have the same key, in whose folder they are.

    ``origin`` is the ancestor's record.
    """
    first: dict[str, str] = {}
    owners: dict[str, str] = {}
    for method, experiment in experiments.items():
        if method:
            owners[method] = first.setdefault(distil.key(experiment, origin), method)
    return owners


def tuner(
    storage: Path,
    trial: Callable[..., None],
    *,
    arrays: Arrays,
    configs: Sequence[Any],
    count: Count,
    rules: Evaluate,
) -> Tuner:
    """One trial per configuration, each with ``rules``' share of the machine.

    ``trial`` is called with ``{"run": configuration}`` and the arrays.
    """
    function = tune.with_parameters(trial, arrays=arrays)
    return Tuner(
        tune.with_resources(function, {"cpu": rules.cpus, "gpu": rules.gpus}),
        param_space={"run": tune.grid_search(list(configs))},
        tune_config=TuneConfig(reuse_actors=True),
        run_config=RunConfig(
            name=f"evaluate-{os.getpid()}-{time.time_ns()}",
            storage_path=str(storage),
            verbose=0,
            callbacks=[count],
        ),
    )
