"""One cell of the comparison: one method, size and seed, started, trained and measured like every other cell."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

from safetensors.torch import save_file
from torch import nn

from pipelines.ancestors.reading import load_directory
from pipelines.ancestors.teacher import teacher_of
from pipelines.comparison.cells import Cell, is_ours, named
from pipelines.config.experiment import Experiment, parse
from pipelines.data.batches import Arrays, MemoryBatches, eval_batches, remembers, training_batches
from pipelines.data.dataset import Dataset, open_dataset
from pipelines.runtime.remote import assigned_device, use_assigned_cpus
from pipelines.runtime.workspace import Workspace
from pipelines.stages.cost import BACKWARD, count_macs, rival_steps
from pipelines.stages.distil import resampling
from wave.baselines import BASELINES
from wave.baselines.base import fresh
from wave.family import Family
from wave.initialisation import plain_model, target_model
from wave.measure import accuracy
from wave.recipe import Recipe
from wave.spec import TargetSpec
from wave.storage import Templates, replacing
from wave.teacher import Teacher
from wave.tensor_file import read_safetensors
from wave.train import Trainer
from wave.vit import HEADS


class Place(NamedTuple):
    """Where a cell finds things: the experiment of its method, as plain JSON types, its workspace, its data set."""

    settings: dict[str, Any]
    workspace: Workspace
    data: str


def run_cell(place: Place, arrays: Arrays, cell: Cell) -> list[dict[str, Any]]:
    """Train one cell and return a row a measured step: accuracy (fraction), seconds, image passes and
    multiply-accumulates of this size's training up to there.

    ``steps`` counts every training step of this size, also those that a method takes to make the weights (LiGO's
    coefficients, our scalers). All cells read the same batches in the same order for the same seed.
    """
    use_assigned_cpus()
    experiment, dataset = parse(place.settings), open_dataset(place.data)
    rules = experiment.evaluate
    batches = MemoryBatches(
        arrays["train_images"], arrays["train_labels"], dataset.mean, dataset.std, rules.batch_size, cell.seed
    )
    part = "held_out" if cell.held_out else "test"
    seen = arrays[f"{part}_images"], arrays[f"{part}_labels"]
    start, total, device = time.perf_counter(), max(cell.steps), assigned_device()
    model, spent, teacher = started(experiment, place.workspace, dataset, cell, batches, total, device)
    model, forward, read = model.to(device), count_macs(Family.of(model), cell.target), 0
    left = max(total - spent, 1)
    recipe = Recipe(
        steps=left, batch_size=rules.batch_size, lr=cell.lr, min_lr=min(1e-5, cell.lr), warmup_steps=min(10, left - 1),
        kl_weight=0,
    )  # fmt: skip
    if cell.distilled:
        recipe = replace(recipe, **experiment.distil.losses)
        reader = teacher_of(place.workspace, dataset).to(device)
        read = count_macs(family := Family.of(reader.model), family.size)
        batches.remember(lambda images: reader(images.to(device)), len(dataset.classes))
    anneals = cell.distilled and experiment.distil.anneals
    trainer = Trainer(model, recipe, left, annealing=anneals, seed=cell.seed, device=device)
    rows: list[dict[str, Any]] = []
    for step in sorted({spent, *(s for s in cell.steps if s > spent)}):
        for _ in trainer.run(lambda s: batches(spent + s), until=step - spent) if step > spent else ():
            pass
        images, seconds = step * rules.batch_size, round(time.perf_counter() - start, 2)
        reached = accuracy(model, eval_batches(*seen, dataset.mean, dataset.std, 100), device)
        measured = {"steps": step, "accuracy": reached, "seconds": seconds, "images": images}
        work = BACKWARD * forward * images + teacher * min(step, spent) * rules.batch_size
        work += batches.taught * read
        rows.append({**named(cell), "budget": total, **measured, "macs": work})
    return rows


class Start(NamedTuple):
    """A cell's model before training of all weights, the steps that making it took, and the multiply-accumulates that a
    teacher added for each of their images."""

    model: nn.Module
    steps: int
    teacher: int


def started(
    experiment: Experiment, workspace: Workspace, dataset: Dataset, cell: Cell, batches: MemoryBatches, total: int,
    device: str = "cpu",
) -> Start:  # fmt: skip
    """Make it, with what steps that takes on ``device``. In a transfer the classifier is drawn anew before them."""
    origin, _, _ = load_directory(workspace.ancestor)
    family = Family.of(origin)
    if is_ours(cell.method):
        steps = min(experiment.evaluate.scaler_steps, total) if experiment.initialise.recipe is not None else 0
        teacher = count_macs(family, family.size) if steps and _taught(experiment, cell) else 0
        return Start(_ours(experiment, workspace, dataset, cell, batches, steps, device), steps, teacher)
    rival, model = BASELINES[cell.method], family.create(cell.target)
    source: nn.Module = origin
    if rival.stage1 is not None:
        source = rival.stage1(family, experiment.seed, origin)
        wanted = {name: tuple(tensor.shape) for name, tensor in source.state_dict().items()}
        file = rival_file(workspace, cell.method)
        source.load_state_dict(read_safetensors(file, wanted, f"remove {file.parent} and run again"))
    if rival.steps:
        source = source.to(device)
    if cell.transfer and rival.steps:
        _draw_classifier(source, family, family.size, cell.seed)
    model.load_state_dict(rival.initialise(source, family, cell.target, cell.seed, batches))
    if cell.transfer and not rival.steps:
        _draw_classifier(model, family, cell.target, cell.seed)
    return Start(model, rival.steps, 0)


def _draw_classifier(model: nn.Module, family: Family, size: TargetSpec, seed: int) -> None:
    """Put that of timm's random start in place of the model's own, the same for every method."""
    drawn = fresh(family, size, seed)
    model.load_state_dict({k: v for k, v in drawn.items() if k.split(".")[0] in HEADS}, strict=False)


def _taught(experiment: Experiment, cell: Cell) -> bool:
    """Whether steps on our scalers have the ancestor's logits, which are for its own classes."""
    recipe = experiment.initialise.recipe
    return is_ours(cell.method) and recipe is not None and recipe.kl_weight > 0 and not cell.transfer


def _ours(
    experiment: Experiment, workspace: Workspace, dataset: Dataset, cell: Cell, batches: MemoryBatches, steps: int,
    device: str,
) -> nn.Module:  # fmt: skip
    templates, rules = Templates.load(workspace.templates), experiment.initialise
    model: nn.Module = target_model(
        templates, cell.target, scalers=rules.scalers, options=resampling(experiment), seed=cell.seed
    )
    if cell.transfer:
        _draw_classifier(model, templates.family, cell.target, cell.seed)
    if steps and rules.recipe is not None:
        recipe = replace(
            rules.recipe, steps=steps, epochs=None, batch_size=experiment.evaluate.batch_size, lr=cell.lr,
            min_lr=min(rules.recipe.min_lr, cell.lr), warmup_steps=min(10, steps - 1),
        )  # fmt: skip
        teacher = teacher_of(workspace, dataset) if _taught(experiment, cell) else None
        classes = len(dataset.classes)
        trainer = Trainer(
            model.to(device), recipe, steps, teacher=teacher and teacher.to(device), num_classes=classes,
            seed=cell.seed, device=device,
        )  # fmt: skip
        for _ in trainer.run(batches):
            pass
        model = trainer.result
    return plain_model(templates, model.cpu())


def rival_file(workspace: Workspace, method: str) -> Path:
    """Where the trained stage 1 of a rival is kept."""
    return workspace.root / "rivals" / method / "stage1.safetensors"


def train_rival(place: Place, method: str) -> None:
    """The stage 1 of a rival that has its own, on the same images, steps, losses and optimiser as ours.

    Ours reads batches at sampled sizes and compares features; the rival takes more steps, so that it makes no fewer
    image passes and no fewer multiply-accumulates (:func:`pipelines.stages.cost.rival_steps`).
    """
    use_assigned_cpus()
    experiment, workspace = parse(place.settings), place.workspace
    dataset, distil = open_dataset(place.data), experiment.distil
    model, mean, std = load_directory(workspace.ancestor)
    make = BASELINES[method].stage1
    assert make is not None
    family = Family.of(model)
    stage1 = make(family, experiment.seed, model)
    recipe = distil.recipe
    batches = training_batches(dataset, experiment.data, recipe.batch_size, experiment.seed)
    steps = rival_steps(experiment, family, dataset)
    device = assigned_device()
    teacher, stage1 = Teacher(model, dataset.mean, dataset.std, mean, std).to(device), stage1.to(device)
    if isinstance(batches, MemoryBatches) and remembers(dataset, experiment.data, recipe):
        batches.remember(lambda images: teacher(images.to(device)), len(dataset.classes))
    trainer = Trainer(
        stage1, recipe, steps, teacher=teacher, annealing=distil.anneals, num_classes=len(dataset.classes),
        seed=experiment.seed, device=device,
    )  # fmt: skip
    for _ in trainer.run(batches):
        pass
    with replacing(rival_file(workspace, method).parent) as folder:
        state = {k: v.cpu().contiguous() for k, v in cast(nn.Module, trainer.result).state_dict().items()}
        save_file(state, folder / "stage1.safetensors")
