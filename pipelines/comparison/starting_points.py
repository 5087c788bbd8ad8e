"""Stages: what a comparison's methods start from, made first and once: templates of ours, rivals' own stages 1."""

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

from pipelines.comparison.cell import Place, rival_file, train_rival
from pipelines.comparison.cells import OURS, is_ours
from pipelines.comparison.keys import BASELINE_STAGE1_DEPENDS_ON
from pipelines.config.comparison import Evaluate
from pipelines.config.experiment import Experiment
from pipelines.config.stage1 import Distil
from pipelines.data.batches import Arrays
from pipelines.data.dataset import Dataset
from pipelines.runtime.console import say
from pipelines.runtime.files import write_text
from pipelines.runtime.keys import key_of, settings_at
from pipelines.runtime.threads import side_by_side
from pipelines.runtime.tune_progress import Count, reason
from pipelines.runtime.workspace import Workspace
from pipelines.stages import distil
from pipelines.stages.cost import rival_cost, stage1_cost
from wave.baselines import BASELINES
from wave.errors import WaveError
from wave.family import Family
from wave.json_file import JsonError, read_json
from wave.measure import num_parameters


class Stages:
    """Where each method finds what it starts from. ``origin`` is the ancestor's record, ``dataset`` its data set;
    ``experiments`` are those of our method and its variants, by name, "" for the comparison's own."""

    def __init__(
        self,
        experiments: Mapping[str, Experiment],
        workspace: Workspace,
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
        return Place(experiment.model_dump(mode="json"), workspace, str(dataset.path))

    @cached_property
    def owners(self) -> dict[str, str]:
        """See :func:`owners`."""
        return owners(self.experiments, self.origin)

    def prepare(self, methods: set[str]) -> None:
        """Make the templates and the rivals' stages 1 of these methods that are not there yet, as many at once as there
        is room for. Raises :class:`WaveError`."""
        ours = sorted(m for m in methods if is_ours(m))
        makers = {self.owners[m]: m for m in ours}
        side_by_side([partial(self._distil, m) for m in makers.values()], room(self.experiments[""].distil))
        for method in (m for m in ours if m not in makers.values()):
            self._distil(method)
        settings = settings_at(self.experiments[""], BASELINE_STAGE1_DEPENDS_ON)
        keys = {m: key_of("baseline", m, self.origin["key"], settings) for m in sorted(methods)}
        rivals = [m for m in keys if not is_ours(m) and BASELINES[m].stage1 is not None]
        missing = [m for m in rivals if not self._there(m, keys[m])]
        if not missing:
            return
        place = self.place(OURS, self.dataset)

        def trial(config: dict[str, Any], arrays: Arrays) -> None:
            train_rival(place, config["run"])
            tune.report({"done": 1})

        count = Count("rivals' stage 1", len(missing), lambda c: c["run"])
        for result in tuner(self.workspace.ray, trial, {}, missing, count, self.experiments[""].evaluate).fit():
            if result.error is not None:
                raise WaveError(f"a rival's stage 1 failed: {reason(result.error)}")
        for method in missing:
            self.workspace.finish(rival_file(self.workspace, method).parent, keys[method], {"method": method})

    def _there(self, method: str, key: str) -> bool:
        """Whether a rival's stage 1 is there, with the files that its record names."""
        folder = rival_file(self.workspace, method).parent
        record = self.workspace.record(folder, key)
        if record is not None and self.workspace.changed(folder, record):
            say(f"{folder} has changed since it was made; it is made again")
            return False
        return record is not None

    def _distil(self, method: str) -> None:
        place, own = self.place(method, self.dataset), self.experiments[method]
        place.workspace.root.mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        done = distil.distil(own, self.dataset, place.workspace, self.origin)
        self.shares[method] = {"share": done["share"], "share_all": done["exchanged"]}
        kept = {"method": method, "seconds": round(time.perf_counter() - start, 1), **done}
        note = place.workspace.root / "stage1.json"
        if _noted(note).get("key") != done["key"]:
            write_text(note, json.dumps(kept, indent=2) + "\n")

    def facts(self, method: str) -> dict[str, Any]:
        """What every row of a method says of its origin; of a method with a stage 1 also what that costs (image passes,
        multiply-accumulates with the teacher's) and what it hands on: templates alone (``share``) and with
        scalers and small tensors (``share_all``), in parts of the ancestor's parameters. Call it after
        :meth:`prepare`."""
        known: dict[str, Any] = {"ancestor_dataset": self.dataset.path.name}
        own = self.experiments.get(method, self.experiments[""])
        if is_ours(method):
            images, work = stage1_cost(own, self.family, self.dataset)
            return {**known, **self.shares[method], "stage1_images": images, "stage1_macs": work}
        make = BASELINES[method].stage1
        if make is None:
            return known
        images, work = rival_cost(own, self.family, self.dataset)
        share = num_parameters(make(self.family)) / self.origin["parameters"]
        return {**known, "share_all": share, "stage1_images": images, "stage1_macs": work}


def _noted(path: Path) -> dict[str, Any]:
    try:
        noted = read_json(path)
    except (OSError, JsonError):
        return {}
    return noted if isinstance(noted, dict) else {}


def room(rules: Distil) -> int:
    """How many trainings by these rules the Ray session has resources for at once, at least one."""
    has, each = ray.cluster_resources(), {"GPU": float(rules.use_gpu), **rules.resources_per_worker}
    return max(1, min(int(has.get(k, 0) / (v * rules.worker_range[1])) for k, v in each.items() if v))


def owners(experiments: Mapping[str, Experiment], origin: Mapping[str, Any]) -> dict[str, str]:
    """Method of ours -> the first one whose templates are made in the same way, in whose folder they are; ``origin`` is
    the ancestor's record."""
    first: dict[str, str] = {}
    named = {m: e for m, e in experiments.items() if m}
    return {m: first.setdefault(distil.key(e, origin), m) for m, e in named.items()}


def tuner(
    storage: Path, trial: Callable[..., None], arrays: Arrays, configs: Sequence[Any], count: Count, rules: Evaluate
) -> Tuner:
    """One trial a configuration, with ``rules``' share of the machine; ``trial`` is called with ``{"run":
    configuration}`` and the arrays."""
    return Tuner(
        tune.with_resources(tune.with_parameters(trial, arrays=arrays), {"cpu": rules.cpus, "gpu": rules.gpus}),
        param_space={"run": tune.grid_search(list(configs))},
        tune_config=TuneConfig(reuse_actors=True),
        run_config=RunConfig(
            name=f"evaluate-{os.getpid()}-{time.time_ns()}",
            storage_path=str(storage),
            verbose=0,
            callbacks=[count],
        ),
    )
