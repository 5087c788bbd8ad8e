"""Baselines that have a stage 1 of their own: its training, and where the result is kept."""

from pathlib import Path
from typing import cast

from safetensors.torch import save_file
from torch import nn

from pipelines.ancestors.reading import load_directory
from pipelines.comparison.cells import Place
from pipelines.config.experiment import parse
from pipelines.data.batches import MemoryBatches, remembers, training_batches
from pipelines.data.dataset import open_dataset
from pipelines.runtime.remote import assigned_device, use_assigned_cpus
from pipelines.runtime.workspace import Workspace
from pipelines.stages.cost import baseline_steps
from wave.baselines import BASELINES
from wave.family import Family
from wave.files import replacing
from wave.teacher import Teacher
from wave.tensor_file import read_safetensors
from wave.train import Trainer


def baseline_file(workspace: Workspace, method: str) -> Path:
    """Where the trained stage 1 of a baseline is kept."""
    return workspace.root / "baselines" / method / "stage1.safetensors"


def trained_stage1(stage1: nn.Module, workspace: Workspace, method: str) -> nn.Module:
    """``stage1`` with the weights that :func:`train_baseline` kept."""
    file = baseline_file(workspace, method)
    wanted = {name: tuple(tensor.shape) for name, tensor in stage1.state_dict().items()}
    tensors = read_safetensors(file, wanted, f"remove {file.parent} and run again")
    stage1.load_state_dict(tensors)
    return stage1


def train_baseline(place: Place, method: str) -> None:
    """Train and keep a baseline's stage 1, on the images, losses and optimiser of ours.

    Ours reads batches at sampled sizes and compares features. The baseline takes more steps, so that
    it makes no fewer image passes and no fewer multiply-accumulates
    (:func:`pipelines.stages.cost.baseline_steps`).
    """
    use_assigned_cpus()
    experiment, workspace = parse(place.settings), place.workspace
    dataset, rules = open_dataset(place.data, place.side), experiment.distil
    recipe, device = rules.recipe, assigned_device()
    model, mean, std = load_directory(workspace.ancestor)
    make = BASELINES[method].stage1
    assert make is not None
    family = Family.of(model)
    stage1 = make(family, experiment.seed, model).to(device)
    teacher = Teacher(model, dataset.mean, dataset.std, mean, std).to(device)
    batches = training_batches(dataset, experiment.data, recipe.batch_size, experiment.seed)
    if isinstance(batches, MemoryBatches) and remembers(dataset, experiment.data, recipe):
        batches.remember(lambda images: teacher(images.to(device)), len(dataset.classes))
    trainer = Trainer(
        stage1,
        recipe,
        steps=baseline_steps(experiment, family, dataset),
        teacher=teacher,
        annealing=rules.anneals,
        num_classes=len(dataset.classes),
        seed=experiment.seed,
        device=device,
    )
    for _ in trainer.run(batches):
        pass
    state = cast(nn.Module, trainer.result).state_dict()
    with replacing(baseline_file(workspace, method).parent) as folder:
        weights = {k: v.cpu().contiguous() for k, v in state.items()}
        save_file(weights, folder / "stage1.safetensors")
