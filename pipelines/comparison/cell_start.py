"""A cell's model before all of its weights are trained, made by the cell's method."""

from dataclasses import replace
from typing import NamedTuple

from torch import nn

from pipelines.ancestors.reading import load_directory
from pipelines.ancestors.teacher import teacher_of
from pipelines.comparison.baselines import trained_stage1
from pipelines.comparison.cells import Cell, is_ours
from pipelines.config.experiment import Experiment
from pipelines.data.batches import MemoryBatches
from pipelines.data.dataset import Dataset
from pipelines.runtime.workspace import Workspace
from pipelines.stages.cost import count_macs
from pipelines.stages.distil import resampling
from wave.baselines import BASELINES
from wave.baselines.base import fresh_state
from wave.family import Family
from wave.initialisation import plain_model, target_model
from wave.spec import TargetSpec
from wave.storage import Templates
from wave.train import Trainer
from wave.vit import HEADS


class CellStart(NamedTuple):
    """A model, the training steps that making it took, and the multiply-accumulates that a teacher
    added for each image of those steps."""

    model: nn.Module
    steps: int
    teacher_macs: int


def start_cell(
    experiment: Experiment,
    workspace: Workspace,
    *,
    dataset: Dataset,
    cell: Cell,
    batches: MemoryBatches,
    total: int,
    device: str = "cpu",
) -> CellStart:
    """Make a cell's model; where that takes training steps, at most ``total``, they run on ``device``.

    In a transfer the classifier is drawn at random before those steps.
    """
    ancestor, _, _ = load_directory(workspace.ancestor)
    family = Family.of(ancestor)
    if is_ours(cell.method):
        trained = experiment.initialise.recipe is not None
        steps = min(experiment.evaluate.scaler_steps, total) if trained else 0
        model = _from_templates(
            experiment, workspace, dataset=dataset, cell=cell, batches=batches, steps=steps, device=device
        )  # fmt: skip
        taught = steps > 0 and _has_teacher(experiment, cell)
        return CellStart(model, steps, count_macs(family, family.size) if taught else 0)
    baseline, model = BASELINES[cell.method], family.create(cell.target)
    source: nn.Module = ancestor
    if baseline.stage1 is not None:
        stage1 = baseline.stage1(family, experiment.seed, ancestor)
        source = trained_stage1(stage1, workspace, cell.method)
    if baseline.steps:
        source = source.to(device)
        if cell.transfer:
            _draw_classifier(source, family, size=family.size, seed=cell.seed)
    model.load_state_dict(baseline.initialise(source, family, cell.target, cell.seed, batches))
    if cell.transfer and not baseline.steps:
        _draw_classifier(model, family, size=cell.target, seed=cell.seed)
    return CellStart(model, baseline.steps, 0)


def _draw_classifier(model: nn.Module, family: Family, *, size: TargetSpec, seed: int) -> None:
    """Put that of timm's random start in place of the model's own, the same for every method."""
    drawn = fresh_state(family, size, seed)
    classifier = {k: v for k, v in drawn.items() if k.split(".")[0] in HEADS}
    model.load_state_dict(classifier, strict=False)


def _has_teacher(experiment: Experiment, cell: Cell) -> bool:
    """Whether steps on our scalers have the ancestor's logits, which are for its own classes."""
    recipe = experiment.initialise.recipe
    return recipe is not None and recipe.kl_weight > 0 and not cell.transfer


def _from_templates(
    experiment: Experiment,
    workspace: Workspace,
    *,
    dataset: Dataset,
    cell: Cell,
    batches: MemoryBatches,
    steps: int,
    device: str,
) -> nn.Module:
    """Our model of the cell's size; with ``steps`` its scalers are trained for that long."""
    templates, rules = Templates.load(workspace.templates), experiment.initialise
    model: nn.Module = target_model(
        templates,
        cell.target,
        scalers=rules.scalers,
        options=resampling(experiment),
        seed=cell.seed,
    )
    if cell.transfer:
        _draw_classifier(model, templates.family, size=cell.target, seed=cell.seed)
    if steps and rules.recipe is not None:
        recipe = replace(
            rules.recipe,
            steps=steps,
            epochs=None,
            batch_size=experiment.evaluate.batch_size,
            lr=cell.lr,
            min_lr=min(rules.recipe.min_lr, cell.lr),
            warmup_steps=min(10, steps - 1),
        )
        teacher = None
        if _has_teacher(experiment, cell):
            teacher = teacher_of(workspace, dataset).to(device)
        trainer = Trainer(
            model.to(device),
            recipe,
            steps=steps,
            teacher=teacher,
            num_classes=len(dataset.classes),
            seed=cell.seed,
            device=device,
        )
        for _ in trainer.run(batches):
            pass
        model = trainer.result
    return plain_model(templates, model.cpu())
