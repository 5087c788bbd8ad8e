"""One cell of the comparison: one method, size and seed, started, trained and measured like every other cell."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file

from wave.baselines import BASELINES
from wave.initialise import initialise
from wave.measure import accuracy
from wave.recipe import Recipe
from wave.spec import TargetSpec
from wave.storage import Templates, replacing
from wave.teacher import Teacher
from wave.train import Trainer
from wave.vit import Family

from . import ancestor
from .config import Experiment, parse
from .data import open_dataset
from .distil import resampling
from .loader import MemoryBatches, eval_batches
from .session import use_assigned_cpus
from .trial import Arrays
from .workspace import Workspace

OURS = "wave"


@dataclass(frozen=True)
class Cell:
    """What identifies one training; ``held_out`` cells choose the learning rate on a part of the training set."""

    method: str
    embed_dim: int
    depth: int
    seed: int
    lr: float
    held_out: bool = False

    def __str__(self) -> str:
        return f"{self.method} {self.target.name} seed {self.seed} lr {self.lr:g}"

    @property
    def target(self) -> TargetSpec:
        return TargetSpec(self.embed_dim, self.depth)


def unreachable(method: str, source: TargetSpec, target: TargetSpec) -> str | None:
    """Why a method cannot make a size from the ancestor's, or None."""
    return None if method == OURS else BASELINES[method].reach(source, target)


def run_cell(settings: dict[str, Any], root: str, data: str, arrays: Arrays, cell: Cell) -> list[dict[str, Any]]:
    """Train one cell and return a row a measured step: accuracy (fraction), seconds and image passes up to there.

    ``steps`` counts every training step of this size, also those that a method takes to make the weights (LiGO). All
    cells read the same batches in the same order for the same seed.
    """
    use_assigned_cpus()
    experiment, workspace = parse(settings), Workspace(Path(root))
    rules, dataset = experiment.evaluate, open_dataset(data)
    part = "held_out" if cell.held_out else "test"
    recipe = _recipe(experiment, cell.lr)
    batches = MemoryBatches(
        arrays["fit_images" if cell.held_out else "train_images"],
        arrays["fit_labels" if cell.held_out else "train_labels"],
        dataset.mean, dataset.std, recipe.batch_size, cell.seed,
    )  # fmt: skip

    def measure(model: torch.nn.Module) -> float:
        return accuracy(
            model, eval_batches(arrays[f"{part}_images"], arrays[f"{part}_labels"], dataset.mean, dataset.std, 256)
        )

    start, spent = time.perf_counter(), 0
    origin, _, _ = ancestor.load(workspace.ancestor)
    family = Family.of(origin)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cell.seed)
        model = family.create(cell.target)
    if cell.method == OURS:
        model = initialise(Templates.load(workspace.templates), cell.target, resampling(experiment))
    else:
        rival = BASELINES[cell.method]
        source: torch.nn.Module = origin
        if rival.stage1 is not None:
            source = rival.stage1(family, experiment.seed, origin)
            source.load_state_dict(load_file(rival_file(workspace, cell.method)))
        spent = rival.steps
        model.load_state_dict(rival.initialise(source, family, cell.target, cell.seed, batches))
    trainer = Trainer(model, recipe, max(rules.steps), seed=cell.seed)
    rows: list[dict[str, Any]] = []
    for step in sorted({0, *rules.steps}):
        for _ in trainer.run(batches, until=step) if step else ():
            pass
        seconds = round(time.perf_counter() - start, 2)
        row = {
            **asdict(cell),
            "dataset": Path(data).name,
            "steps": step + spent,
            "accuracy": measure(model),
            "seconds": seconds,
        }
        rows.append(row | {"images": (step + spent) * recipe.batch_size})
    return rows


def _recipe(experiment: Experiment, lr: float) -> Recipe:
    rules = experiment.evaluate
    return Recipe(
        steps=max(rules.steps),
        batch_size=rules.batch_size,
        lr=lr,
        min_lr=min(1e-5, lr),
        warmup_steps=min(10, max(rules.steps) - 1),
        kl_weight=0,
    )


def rival_file(workspace: Workspace, method: str) -> Path:
    """Where the trained stage 1 of a rival is kept."""
    return workspace.root / "rivals" / method / "stage1.safetensors"


def train_rival(settings: dict[str, Any], root: str, data: str, arrays: Arrays, method: str) -> None:
    """The stage 1 of a rival that has its own, on the same images, steps, losses and optimiser as ours.

    Ours reads each batch at the auxiliary and at sampled sizes; the rival takes that many more steps, so that both
    make the same number of image passes.
    """
    use_assigned_cpus()
    experiment, workspace = parse(settings), Workspace(Path(root))
    dataset, distil = open_dataset(data), experiment.distil
    model, mean, std = ancestor.load(workspace.ancestor)
    make = BASELINES[method].stage1
    assert make is not None
    stage1 = make(Family.of(model), experiment.seed, model)
    recipe, images = distil.recipe, arrays["train_images"]
    batches = MemoryBatches(
        images, arrays["train_labels"], dataset.mean, dataset.std, recipe.batch_size, experiment.seed
    )
    passes = 1 + (distil.sizes_per_step if distil.sizes else 0)
    steps = recipe.total_steps(batches.steps_per_epoch) * passes
    teacher = Teacher(model, dataset.mean, dataset.std, mean, std)
    trainer = Trainer(stage1, recipe, steps, teacher=teacher, num_classes=len(dataset.classes), seed=experiment.seed)
    for _ in trainer.run(batches):
        pass
    with replacing(rival_file(workspace, method).parent) as folder:
        state = {k: v.contiguous() for k, v in cast(torch.nn.Module, trainer.result).state_dict().items()}
        save_file(state, folder / "stage1.safetensors")
