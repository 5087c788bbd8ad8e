"""One training on Ray Train workers, for the ancestor and for stage 1: DDP, a checkpoint an epoch, resumed by name."""

import pickle
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import ray.train
import torch
from ray.exceptions import RayError
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device, prepare_model
from ray.train.v2.api.exceptions import TrainingFailedError
from torch import nn

from pipelines.config.experiment import Experiment, parse
from pipelines.data.batches import MemoryBatches, remembers, training_batches
from pipelines.data.dataset import Dataset, reopen
from pipelines.runtime.console import line
from pipelines.runtime.files import write_text
from pipelines.runtime.progress import teller
from pipelines.runtime.remote import use_assigned_cpus
from pipelines.runtime.threads import side_by_side
from pipelines.runtime.workspace import Workspace
from wave.errors import Diverged, WaveError
from wave.recipe import Recipe
from wave.spec import TargetSpec
from wave.tensor_file import UNREADABLE, read_torch, weights
from wave.train import Trainer

_STATE = "state.pt"


@dataclass(frozen=True)
class Work:
    """What a worker trains: a model, its teacher, the sampled sizes, and how rank 0 keeps and judges the result."""

    title: str
    recipe: Recipe
    model: nn.Module
    keep: Callable[[nn.Module, dict[str, Any]], float]
    teacher: nn.Module | None = None
    sampler: Callable[[int], Sequence[TargetSpec]] | None = None
    feature_weight: float = 0.0
    annealing: bool = False


Build = Callable[[Experiment, Dataset, Workspace], Work]


def fit(experiment: Experiment, dataset: Dataset, workspace: Workspace, name: str, build: Build) -> float:
    """Run ``build``'s work on the workers that ``[distil]`` asks for and return its accuracy; the same ``name`` again
    resumes.

    Raises :class:`WaveError` with the first worker's own message when one of ours, else with what Ray says.
    """
    least, most = experiment.distil.worker_range
    trainer = TorchTrainer(
        _worker,
        train_loop_config={
            "experiment": experiment.model_dump(mode="json"),
            "data": str(dataset.path),
            "outline": dataset.outline,
            "workspace": workspace,
            "build": build,
            "name": name,
        },
        scaling_config=ScalingConfig(
            num_workers=least if least == most else (least, most),
            elastic_resize_monitor_interval_s=15.0,
            use_gpu=experiment.distil.use_gpu,
            resources_per_worker=dict(experiment.distil.resources_per_worker),
        ),
        run_config=RunConfig(
            name=name,
            storage_path=str(workspace.ray),
            failure_config=FailureConfig(max_failures=experiment.distil.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    refusal, verdict = _refusal(workspace, name), _verdict(workspace, name)
    refusal.unlink(missing_ok=True)
    try:
        side_by_side([trainer.fit])
    except TrainingFailedError as error:
        failures = getattr(error, "worker_failures", None) or {}
        for failure in failures.values():
            cause = getattr(failure, "cause", failure)
            if isinstance(cause, WaveError):
                raise cause from None
        text = " ".join(str(next(iter(failures.values()), error)).split())
        raise WaveError(
            f"training {name} failed: {text[:600]}; the same command again continues from its last checkpoint"
        ) from None
    except RayError as error:  # the controller itself is gone, as with the driver's node
        text = (str(error).splitlines() or [type(error).__name__])[0]
        raise WaveError(
            f"training {name} failed: {text}; the same command again continues from its last checkpoint"
        ) from None
    if refusal.is_file():
        raise WaveError(refusal.read_text())
    reached = float(verdict.read_text())
    verdict.unlink()
    shutil.rmtree(workspace.ray / name, ignore_errors=True)
    return reached


def _refusal(workspace: Workspace, name: str) -> Path:
    """Where rank 0 leaves the message of an error that no restart would mend."""
    return workspace.ray / f"{name}.refused"


def _verdict(workspace: Workspace, name: str) -> Path:
    """Where rank 0 leaves the accuracy of what was trained."""
    return workspace.ray / f"{name}.accuracy"


def _saved(checkpoint: Checkpoint | None, device: Any) -> dict[str, Any] | None:
    """The state in a checkpoint; raises :class:`WaveError` when it is damaged or holds more than finite tensors."""
    if checkpoint is None:
        return None
    where = Path(checkpoint.path)
    with checkpoint.as_directory() as folder:
        try:
            state = cast(dict[str, Any], read_torch(Path(folder) / _STATE, device))
            for name, tensor in state["model"].items():
                weights(where / _STATE, name, tensor)
            return state
        except WaveError as error:
            why = str(error).removeprefix(f"{where / _STATE}: ").partition(";")[0]
        except (pickle.UnpicklingError, *UNREADABLE):
            why = "not a checkpoint of this program"
    raise WaveError(f"{where / _STATE}: {why}; remove {where.parent} and run again")


def _worker(config: dict[str, Any]) -> None:
    experiment, workspace = parse(config["experiment"]), cast(Workspace, config["workspace"])
    context, tell = ray.train.get_context(), teller()
    use_assigned_cpus()
    rank, world, device = context.get_world_rank(), context.get_world_size(), get_device()
    refusal = _refusal(workspace, config["name"])
    if refusal.is_file():  # another worker's reason, found before this group was started again
        return
    try:
        dataset = reopen(config["data"], config["outline"], experiment.data.image_size)
        work = cast(Build, config["build"])(experiment, dataset, workspace)
        saved_state = _saved(ray.train.get_checkpoint(), device)
    except WaveError as error:  # the same on every worker, so a restart would not help
        if rank == 0:
            write_text(refusal, str(error))
        return
    recipe = work.recipe
    batches = training_batches(dataset, experiment.data, recipe.batch_size, experiment.seed, rank, world)
    teacher = work.teacher.to(device) if work.teacher is not None else None
    remembered = remembers(dataset, experiment.data, recipe) and not work.feature_weight
    if teacher is not None and isinstance(batches, MemoryBatches) and remembered:
        batches.remember(lambda images, read=teacher: read(images.to(device)), len(dataset.classes))
    trainer = Trainer(
        prepare_model(work.model, move_to_device=True),
        recipe,
        recipe.total_steps(batches.steps_per_epoch),
        teacher=teacher,
        sampler=work.sampler,
        feature_weight=work.feature_weight,
        annealing=work.annealing,
        num_classes=len(dataset.classes),
        seed=experiment.seed,
        device=device,
    )
    if saved_state is not None:
        trainer.load_state_dict(saved_state)
        if rank == 0:
            tell(f"{work.title}: resumed at step {trainer.step}/{trainer.steps} on {world} workers")
    every = batches.steps_per_epoch  # an epoch; of a small set that is counted in steps, no more than ten in all
    if recipe.epochs is None:
        every = max(every, trainer.steps // 10)
    start = time.perf_counter()
    while trainer.step < trainer.steps:
        metrics: Any = {}
        try:
            for metrics in trainer.run(batches, until=(trainer.step // every + 1) * every):
                metrics["images_per_second"] *= world
                if rank == 0:
                    tell(line(work.title, metrics))
        except Diverged as error:  # it would again; the other workers wait for this one, so it cannot just return
            write_text(refusal, f"{work.title}: {error}")
            raise
        with tempfile.TemporaryDirectory() as folder:
            saved = None
            if rank == 0:
                torch.save(trainer.state_dict(), Path(folder) / _STATE)
                saved = Checkpoint.from_directory(folder)
            ray.train.report(metrics, checkpoint=saved)
    if rank == 0:
        made = {"seconds": time.perf_counter() - start, "steps": trainer.steps, "workers": world}
        write_text(_verdict(workspace, config["name"]), str(work.keep(trainer.result, made)))
