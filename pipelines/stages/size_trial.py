"""One Tune trial of stage 2: one size from templates to a registered timm model, resumed from its own checkpoint."""

import io
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.ancestors.teacher import teacher_of
from pipelines.config.experiment import Experiment, parse
from pipelines.data.batches import Arrays, MemoryBatches, augment_of, eval_batches, evaluation_batches, training_batches
from pipelines.data.dataset import Dataset, reopen
from pipelines.data.transforms import bilinear
from pipelines.registry import publish, runs
from pipelines.registry.store import Store
from pipelines.runtime.console import line
from pipelines.runtime.files import write_bytes
from pipelines.runtime.progress import teller
from pipelines.runtime.remote import assigned_device, use_assigned_cpus
from pipelines.runtime.workspace import Workspace
from pipelines.stages.cost import count_macs
from pipelines.stages.distil import resampling
from wave.errors import Diverged, WaveError
from wave.export import save_model
from wave.initialisation import plain_model, target_model
from wave.measure import accuracy, num_parameters
from wave.recipe import Batch, Recipe
from wave.seeding import seeded
from wave.spec import KINDS, Kind, TargetSpec
from wave.storage import Templates
from wave.teacher import Teacher
from wave.tensor_file import UNREADABLE, read_torch
from wave.train import Trainer

SAVE_SECONDS = 15.0
"""How old a trial's saved state may grow: what a stop or a kill loses at most, and a line of progress."""


@dataclass(frozen=True)
class Job:
    """What every trial of a batch needs and may be pickled: settings, places, and the batch's MLflow run."""

    experiment: dict[str, Any]
    data: str
    outline: dict[str, str]
    root: str
    templates: Templates
    """Without their tensors, which are among the arrays."""
    store: Store
    parent_run: str
    batch_key: str
    tags: dict[str, str]


def run_trial(job: Job, arrays: Arrays, target: TargetSpec, key: str) -> dict[str, Any]:
    """Initialise, train, measure, write, register and record one size; returns the record.

    ``arrays`` holds the templates' tensors; ``train_images``, ``train_labels`` and ``teacher_logits`` when the training
    data is shared; ``test_images`` and ``test_labels`` when the test data is. Raises :class:`WaveError`.
    """
    experiment, workspace = parse(job.experiment), Workspace(Path(job.root))
    use_assigned_cpus()
    dataset, templates = reopen(job.data, job.outline, experiment.data.image_size), _templates(job, arrays)
    device = assigned_device()
    start, settings = time.perf_counter(), experiment.initialise
    model = target_model(
        templates, target, scalers=settings.scalers, options=resampling(experiment), seed=experiment.seed
    ).to(device)
    full = templates.family.resolve(target)
    comparable = full.num_classes == len(dataset.classes)
    test = evaluated(experiment, dataset, arrays, cast(int, full.img_size))
    row: dict[str, Any] = {
        "size": target.name,
        "embed_dim": full.embed_dim,
        "depth": full.depth,
        "num_heads": templates.spec.shape(full).heads,
        "scalers": templates.spec.num_scalers(full),
        "accuracy_before": accuracy(model, test(0), device) if comparable else None,
        "accuracy_after": None,
        "accuracy_scratch": None,
    }
    if not comparable:
        classes = f"{full.num_classes} classes, the data has {len(dataset.classes)}"
        teller()(f"{target.name}: {classes}; its head is new, and it is neither trained nor measured")
    if settings.recipe is not None and comparable:
        teacher = (
            teacher_of(workspace, dataset) if settings.recipe.kl_weight and "teacher_logits" not in arrays else None
        )
        batches, steps = _batches(experiment, dataset, arrays, settings.recipe, cast(int, full.img_size))

        def train(net: nn.Module, title: str, state: Path | None = None) -> Any:
            return _train(
                net, cast(Recipe, settings.recipe), batches, steps, teacher, title, state, key, experiment.seed, device
            )

        model = train(model, target.name, workspace.checkpoint(target.name))
        row["accuracy_after"] = accuracy(model, test(0), device)
        if settings.compare_scratch:
            with seeded(experiment.seed):
                fresh = templates.family.create(full).to(device)
            fresh = train(fresh, f"{target.name} from scratch")
            row["accuracy_scratch"] = accuracy(fresh, test(0), device)
    plain = plain_model(templates, model.cpu())
    if not all(bool(p.isfinite().all()) for p in plain.parameters()):
        raise WaveError(
            f"{target.name}: its weights are NaN or infinite; lower lr or symmetry_strength of [initialise]"
        )
    row |= {"parameters": num_parameters(plain), "macs": count_macs(templates.family, full)}
    folder = workspace.model(target.name)
    classes = dataset.classes if comparable else None
    save_model(plain, folder, dataset.mean, dataset.std, classes, dataset.preprocessing)
    row["seconds"] = round(time.perf_counter() - start, 2)
    register(job, experiment, folder, key, row)
    workspace.checkpoint(target.name).unlink(missing_ok=True)
    return workspace.finish(folder, key, row)


def _templates(job: Job, arrays: Arrays) -> Templates:
    """With their tensors, copied: those in the arrays are shared by all trials."""
    kinds: dict[Kind, Tensor] = {kind: torch.tensor(arrays[f"bank.{kind}"]) for kind in KINDS}
    names = [name.removeprefix("state.") for name in arrays if name.startswith("state.")]
    return replace(job.templates, bank=kinds, state={name: torch.tensor(arrays[f"state.{name}"]) for name in names})


def register(job: Job, experiment: Experiment, folder: Path, key: str, row: dict[str, Any]) -> None:
    """Log the size's run and publish its directory under the size's name as alias; the same again changes nothing."""
    params = {k: row[k] for k in ("embed_dim", "depth", "num_heads", "parameters", "macs", "scalers")}
    metrics = {
        k: row[k] for k in ("accuracy_before", "accuracy_after", "accuracy_scratch", "seconds") if row[k] is not None
    }
    name, model_name = str(row["size"]), experiment.mlflow.registered_model
    run = runs.size_run(job.store, job.parent_run, f"{job.batch_key}.{name}", name, params, metrics, job.tags)
    tags = {**job.tags, **params, **{k: v for k, v in metrics.items() if k != "seconds"}}
    text = (
        f"Vision Transformer of width {row['embed_dim']}, depth {row['depth']}, {row['parameters']} parameters, "
        f"initialised by WAVE from templates {job.tags['templates_digest'][:12]}.\n\n"
        f"{publish.snippet(model_name, name)}"
    )
    publish.publish(job.store, folder, model_name, name, run, tags, text, metrics, key)


def _train(
    model: nn.Module,
    recipe: Recipe,
    batches: Callable[[int], Iterator[Batch]],
    steps: int,
    teacher: Teacher | None,
    title: str,
    state: Path | None,
    key: str,
    seed: int,
    device: str,
) -> Any:
    num_classes = cast(int, model.num_classes)
    trainer = Trainer(
        model, recipe, steps, teacher=teacher and teacher.to(device), num_classes=num_classes, seed=seed, device=device
    )
    tell, every = teller(), max(recipe.log_every, steps // 4)
    saved = _saved(state, device) if state is not None and state.is_file() else {}
    if saved.get("key") == key:
        trainer.load_state_dict(saved["trainer"])
        tell(f"{title}: resumed at step {trainer.step}/{steps}")

    def keep() -> None:
        if state is not None and trainer.step < steps:
            _save(state, {"key": key, "trainer": trainer.state_dict()})

    last = time.monotonic()
    while trainer.step < steps:
        try:
            for metrics in trainer.run(batches, until=trainer.step + every):
                tell(line(title, metrics))
                if time.monotonic() - last > SAVE_SECONDS:
                    keep()
                    last = time.monotonic()
        except Diverged:
            if state is not None:
                state.unlink(missing_ok=True)  # the next try begins anew, not on the way into NaN
            raise
        keep()
    return trainer.result


def _saved(state: Path, device: str) -> dict[str, Any]:
    """What an earlier try left; nothing when that cannot be read. Tensors and plain types only, so no code runs."""
    try:
        saved = read_torch(state, device)
    except (pickle.UnpicklingError, *UNREADABLE):
        return {}
    return cast(dict[str, Any], saved) if isinstance(saved, dict) else {}


def _save(state: Path, content: dict[str, Any]) -> None:
    """Write a trial's state, whole or not at all."""
    buffer = io.BytesIO()  # torch's own writer does not say what went wrong with a file, nor with which
    torch.save(content, buffer)
    write_bytes(state, buffer.getbuffer())


def evaluated(experiment: Experiment, dataset: Dataset, arrays: Arrays, size: int) -> Callable[[int], Iterator[Batch]]:
    """The test split as a model of ``size`` pixels reads it: image files as its saved preprocessing says, raw pixels
    resized."""
    own = dataset.at(size)
    if "test_images" in arrays and own is dataset:
        images, labels = arrays["test_images"], arrays["test_labels"]
        return _resized(lambda _: eval_batches(images, labels, dataset.mean, dataset.std, 256), size)
    begin = evaluation_batches(own, experiment.data, 256)
    return _resized(lambda _: begin(), size)


def _batches(
    experiment: Experiment, dataset: Dataset, arrays: Arrays, recipe: Recipe, size: int
) -> tuple[Callable[[int], Iterator[Batch]], int]:
    """The size's training batches, resized to its images, and its number of steps."""
    if "train_images" in arrays:
        images, labels = arrays["train_images"], arrays["train_labels"]
        logits = cast("NDArray[np.float32] | None", arrays.get("teacher_logits"))
        mean, std = dataset.mean, dataset.std
        batches: Any = MemoryBatches(
            images,
            labels,
            mean,
            std,
            recipe.batch_size,
            experiment.seed,
            teacher_logits=logits,
            augment=None if experiment.initialise.caches_logits else augment_of(experiment.data),
        )
    else:
        batches = training_batches(dataset, experiment.data, recipe.batch_size, experiment.seed)
    return _resized(batches, size), recipe.total_steps(batches.steps_per_epoch)


def _resized(batches: Callable[[int], Iterator[Batch]], size: int) -> Callable[[int], Iterator[Batch]]:
    def generate(step: int) -> Iterator[Batch]:
        for batch in batches(step):
            yield batch._replace(images=bilinear(batch.images, size))

    return generate


def check_targets(templates: Templates, targets: list[TargetSpec]) -> None:
    """Raise :class:`WaveError` for the first target that the templates cannot build, before anything starts."""
    for target in targets:
        try:
            full = templates.family.resolve(target)
            templates.spec.check(templates.spec.shape(full))
        except WaveError as error:
            raise WaveError(f"targets: {target.name}: {error}") from None
