"""The trained model that templates come from, as workers see it: its key, its training, its accuracy, its logits."""

import os
from typing import Any, cast

import torch
from timm.models.vision_transformer import VisionTransformer

from pipelines.ancestors.reading import create, load
from pipelines.config.experiment import Experiment
from pipelines.data.batches import augment_of, evaluation_batches
from pipelines.data.dataset import Dataset
from pipelines.runtime.workspace import Workspace, absolute, key_of
from pipelines.stages.training import Work
from wave.errors import WaveError
from wave.measure import accuracy
from wave.storage import save_model
from wave.teacher import Teacher


def key(experiment: Experiment, dataset: Dataset) -> str:
    """What the ancestor depends on."""
    settings = experiment.ancestor
    return key_of(
        *("ancestor", settings.model_dump(mode="json"), experiment.seed, dataset.digest, _stamp(settings.source)),
        augment_of(experiment.data) if settings.source == "train" else None,
    )


def kept(workspace: Workspace, own: str) -> dict[str, Any] | None:
    """Its record if it is there. Raises :class:`WaveError` when it is not as it was made: it cost a training."""
    folder = workspace.ancestor
    record = workspace.record(folder, own)
    if record is not None and workspace.changed(folder, record):
        raise WaveError(f"{folder} has changed since it was made; put its files back, or remove it and run again")
    return record


def teacher_of(workspace: Workspace, dataset: Dataset) -> Teacher:
    """The ancestor as a teacher for images normalised with the data set's statistics."""
    model, mean, std = load(workspace.ancestor)
    return Teacher(model, dataset.mean, dataset.std, mean, std)


def judge(device: str, experiment: Experiment, dataset: Dataset, workspace: Workspace) -> float:
    """Its accuracy on the test split."""
    model, mean, std = load(workspace.ancestor)
    from_data = (tuple(mean), tuple(std)) == (dataset.mean, dataset.std)
    judged = model if from_data else teacher_of(workspace, dataset)
    return accuracy(judged.to(device), evaluation_batches(dataset, experiment.data, 256)(), device)


def named(experiment: Experiment, dataset: Dataset, device: str | None = None) -> VisionTransformer:
    """A model of ``ancestor.architecture`` that reads the data, unless ``ancestor.model_args`` says otherwise."""
    channels, size, _ = dataset.shape
    own = {"img_size": size, "in_chans": channels, "num_classes": len(dataset.classes)}
    name = cast(str, experiment.ancestor.architecture)
    return create(name, {**own, **experiment.ancestor.model_args}, "ancestor", device)


def build(experiment: Experiment, dataset: Dataset, workspace: Workspace) -> Work:
    """Its training, for :func:`pipelines.stages.training.fit`."""
    recipe = experiment.ancestor.recipe
    assert recipe is not None
    torch.manual_seed(experiment.seed)
    model = named(experiment, dataset)

    def keep(trained: torch.nn.Module, _: dict[str, Any]) -> float:
        save_model(trained, workspace.ancestor, dataset.mean, dataset.std, dataset.classes)
        device = next(trained.parameters()).device
        return accuracy(trained, evaluation_batches(dataset, experiment.data, 256)(), device)

    return Work("ancestor", recipe, model, keep)


def _stamp(source: str) -> object:
    """What tells two states of a local source apart."""
    kind, _, rest = source.partition(":")
    if kind not in ("local-dir", "checkpoint"):
        return 0
    path = absolute(rest, "ancestor.source")
    files = [path / "model.safetensors", path / "config.json"] if kind == "local-dir" else [path]
    return [[file.stat().st_size, file.stat().st_mtime_ns] for file in files if os.path.isfile(file)]
