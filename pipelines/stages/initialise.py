"""Stage 2 on Ray Tune: one function trial a size, reused actors, data shared as numpy; only what is missing is done."""

import time
from dataclasses import asdict, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from ray import tune
from ray.tune import FailureConfig, RunConfig, TuneConfig, Tuner

from pipelines.ancestors.teacher import teacher_of
from pipelines.config.experiment import Experiment, parse
from pipelines.config.messages import redacted
from pipelines.data.batches import Arrays, eval_batches, held_in_memory
from pipelines.data.dataset import Dataset
from pipelines.registry import publish, runs
from pipelines.registry.store import Store
from pipelines.runtime.console import say
from pipelines.runtime.keys import IMAGE_CHANGES, key_of, settings_at
from pipelines.runtime.provenance import git_commit
from pipelines.runtime.remote import on_worker
from pipelines.runtime.tune_progress import Count, reason
from pipelines.runtime.workspace import Workspace
from pipelines.stages.distil import RESAMPLING_DEPENDS_ON
from pipelines.stages.size_trial import Job, check_targets, register, run_trial
from wave.errors import WaveError
from wave.measure import all_logits, num_parameters
from wave.spec import TargetSpec
from wave.storage import Templates

SIZE_DEPENDS_ON = (
    *RESAMPLING_DEPENDS_ON,
    "initialise.recipe",
    "initialise.scalers",
    "initialise.subset",
    "initialise.teacher_logits",
    "initialise.compare_scratch",
)
"""Settings that decide what stage 2 makes of templates; see :mod:`pipelines.runtime.keys`."""


class Outcome(dict[str, dict[str, Any]]):
    """Records by size, in the order of the targets; ``failed`` says why there are no others, ``run`` is MLflow's."""

    failed: dict[str, str]
    run: str


def initialise(
    experiment: Experiment, dataset: Dataset, workspace: Workspace, stage1: dict[str, Any], store: Store
) -> Outcome:
    """Make every target size that is not there yet, register all of them, and return their records.

    ``stage1`` is the templates' record. A size that fails does not stop the others. Raises :class:`WaveError` when
    a size is impossible or the registry cannot be reached.
    """
    targets = experiment.target_specs()
    templates = Templates.load(workspace.templates)
    if templates.digest != stage1["digest"]:
        raise WaveError(f"{workspace.templates} was replaced while this ran; put its files back, or remove it")
    check_targets(templates, targets)
    job = _job(experiment, dataset, workspace, templates, store)
    keys = {t.name: _key(experiment, dataset, templates, t) for t in targets}
    records = {t.name: workspace.record(workspace.model(t.name), keys[t.name]) for t in targets}
    for name, record in records.items():
        if record is not None and workspace.changed(folder := workspace.model(name), record):
            say(f"stage 2: {folder} has changed since it was made; it is made again")
            workspace.forget(folder)
            records[name] = None
    todo = [t for t in targets if records[t.name] is None]
    for target in targets:
        record = records[target.name]
        if record is not None:
            register(job, experiment, workspace.model(target.name), keys[target.name], record)
    say(f"stage 2: {len(targets)} sizes, {len(targets) - len(todo)} already there, {len(todo)} to do")
    status: runs.Status = "KILLED"
    try:
        failed = _fan_out(experiment, dataset, workspace, templates, job, todo, keys) if todo else {}
        status = "FAILED" if failed else "FINISHED"
        for name, why in failed.items():
            tags = {**job.tags, "reason": why}
            runs.size_run(store, job.parent_run, f"{job.batch_key}.{name}", name, {}, {}, tags, "FAILED")
    finally:
        runs.end_batch(store, job.parent_run, status)
    outcome = Outcome()
    for target in targets:
        record = workspace.record(workspace.model(target.name), keys[target.name])
        if record is not None:
            outcome[target.name] = {**record, "alias": f"{experiment.mlflow.registered_model}@{target.name}"}
    outcome.failed, outcome.run = failed, job.parent_run
    return outcome


def _key(experiment: Experiment, dataset: Dataset, templates: Templates, target: TargetSpec) -> str:
    unchanged = experiment.initialise.subset and experiment.initialise.caches_logits
    fields = SIZE_DEPENDS_ON if unchanged else (*SIZE_DEPENDS_ON, *IMAGE_CHANGES)
    settings = settings_at(experiment, fields)
    seen = [dataset.preprocessing] if dataset.preprocessing else []  # raw images' sizes keep their keys
    return key_of("size", templates.digest, dataset.digest, settings, target.to_json(), *seen)


def _job(experiment: Experiment, dataset: Dataset, workspace: Workspace, templates: Templates, store: Store) -> Job:
    """Open the batch's MLflow run and register the templates under it."""
    settings = settings_at(experiment, SIZE_DEPENDS_ON)
    batch = key_of("batch", experiment.name, templates.digest, dataset.digest, settings)
    tags = {
        "templates_digest": templates.digest,
        "data_digest": dataset.digest,
        "git_commit": git_commit(),
        "architecture": templates.family.architecture,
    }
    params = {"name": experiment.name, "seed": experiment.seed, "output": str(workspace.root)}
    run = runs.batch_run(store, batch, experiment.name, params, tags)
    runs.log_files(store, run, workspace.root / "resolved.toml")
    text = f"Weight templates {templates.digest[:12]}: safetensors and JSON, read by wave.Templates.load."
    name = f"{experiment.mlflow.registered_model}-templates"
    publish.publish(
        store, workspace.templates, name, f"t{templates.digest[:12]}", run, tags, text, templates.info["metrics"], batch
    )
    plain = experiment.model_copy(
        update={
            "mlflow": experiment.mlflow.model_copy(update={"tracking_uri": redacted(experiment.mlflow.tracking_uri)})
        }
    )
    without_tensors = replace(templates, bank={}, state={})
    settings, data = plain.model_dump(mode="json"), str(dataset.path)
    return Job(settings, data, dataset.outline, str(workspace.root), without_tensors, store, run, batch, tags)


def _shared(experiment: Experiment, dataset: Dataset, workspace: Workspace, templates: Templates) -> Arrays:
    """The arrays that all trials read: the templates' tensors, small or limited training data with the teacher's
    logits, small test data."""
    arrays: Arrays = {f"bank.{kind}": tensor.numpy() for kind, tensor in templates.bank.items()}
    arrays |= {f"state.{name}": tensor.numpy() for name, tensor in templates.state.items()}
    settings = experiment.initialise
    recipe = settings.recipe
    if held_in_memory(dataset, experiment.data, "test"):
        arrays["test_images"], arrays["test_labels"] = dataset.arrays("test")
    whole = held_in_memory(dataset, experiment.data) and not experiment.data.changes_images
    if recipe is None or not (settings.subset or whole):
        return arrays
    images, labels = dataset.arrays("train", limit=settings.subset or None, seed=experiment.seed)
    arrays |= {"train_images": images, "train_labels": labels}
    if settings.caches_logits:
        arrays["teacher_logits"] = on_worker(experiment.distil, _teacher_logits, dataset, workspace, images, labels)
    return arrays


def _teacher_logits(
    device: str, dataset: Dataset, workspace: Workspace, images: NDArray[np.uint8], labels: NDArray[np.int64]
) -> NDArray[np.float32]:
    teacher = teacher_of(workspace, dataset).to(device)
    batches = eval_batches(images, labels, dataset.mean, dataset.std, 256)
    return all_logits(teacher, batches, device).numpy().astype(np.float32)


def _fan_out(
    experiment: Experiment,
    dataset: Dataset,
    workspace: Workspace,
    templates: Templates,
    job: Job,
    todo: list[TargetSpec],
    keys: dict[str, str],
) -> dict[str, str]:
    parameters = {
        t.name: num_parameters(templates.family.create(templates.family.resolve(t), device="meta")) for t in todo
    }

    def trial(config: dict[str, Any], job: Job, arrays: Arrays) -> None:
        size = config["size"]
        record = run_trial(job, arrays, TargetSpec(**size), keys[TargetSpec(**size).name])
        tune.report({"accuracy": record["accuracy_after"] or record["accuracy_before"] or 0.0})

    def resources(config: dict[str, Any]) -> Any:  # Tune takes a function of the configuration, its types do not say so
        return parse(job.experiment).initialise.resources_for(parameters[TargetSpec(**config["size"]).name])

    function = tune.with_parameters(trial, job=job, arrays=_shared(experiment, dataset, workspace, templates))
    tuner = Tuner(
        tune.with_resources(function, cast(Any, resources)),
        param_space={"size": tune.grid_search([asdict(t) for t in todo])},
        tune_config=TuneConfig(reuse_actors=True),
        run_config=RunConfig(
            name=f"sizes-{time.strftime('%Y%m%d-%H%M%S')}",
            storage_path=str(workspace.ray),
            verbose=0,
            failure_config=FailureConfig(max_failures=experiment.initialise.max_failures),
            callbacks=[Count("stage 2", len(todo), lambda config: TargetSpec(**config["size"]).name)],
        ),
    )
    failed: dict[str, str] = {}
    for result in tuner.fit():
        if result.error is not None and result.config is not None:
            failed[TargetSpec(**result.config["size"]).name] = reason(result.error)
    for target in todo:  # whatever Tune says: a size is made when its record is there
        if workspace.record(workspace.model(target.name), keys[target.name]) is None:
            failed.setdefault(target.name, "it was not finished")
    return failed
