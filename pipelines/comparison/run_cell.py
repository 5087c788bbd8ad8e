"""Train and measure one cell of the comparison."""

import time
from dataclasses import replace
from typing import Any

from pipelines.ancestors.teacher import teacher_of
from pipelines.comparison.cell_start import start_cell
from pipelines.comparison.cells import Cell, Place, named
from pipelines.config.experiment import parse
from pipelines.data.batches import Arrays, MemoryBatches, eval_batches
from pipelines.data.dataset import open_dataset
from pipelines.runtime.remote import assigned_device, use_assigned_cpus
from pipelines.stages.cost import BACKWARD, count_macs
from wave.family import Family
from wave.measure import accuracy
from wave.recipe import Recipe
from wave.train import Trainer


def run_cell(place: Place, arrays: Arrays, cell: Cell) -> list[dict[str, Any]]:
    """Train one cell and return one row per measured step.

    A row holds the accuracy (a fraction), and the seconds, image passes and multiply-accumulates of
    this size's training up to that step. ``steps`` counts every training step of the size, also
    those that a method takes to make the weights (LiGO's coefficients, our scalers). All cells of a
    seed read the same batches in the same order.
    """
    use_assigned_cpus()
    experiment, dataset = parse(place.settings), open_dataset(place.data, place.side)
    rules, device = experiment.evaluate, assigned_device()
    batches = MemoryBatches(
        arrays["train_images"],
        arrays["train_labels"],
        mean=dataset.mean,
        std=dataset.std,
        batch_size=rules.batch_size,
        seed=cell.seed,
    )
    part = "held_out" if cell.held_out else "test"
    seen = arrays[f"{part}_images"], arrays[f"{part}_labels"]
    began, total = time.perf_counter(), max(cell.steps)
    start = start_cell(
        experiment,
        place.workspace,
        dataset=dataset,
        cell=cell,
        batches=batches,
        total=total,
        device=device,
    )
    model, spent = start.model.to(device), start.steps
    forward = count_macs(Family.of(model), cell.target)
    left = max(total - spent, 1)
    recipe = Recipe(
        steps=left,
        batch_size=rules.batch_size,
        lr=cell.lr,
        min_lr=min(1e-5, cell.lr),
        warmup_steps=min(10, left - 1),
        kl_weight=0,
    )
    teacher_forward = 0
    if cell.distilled:
        recipe = replace(recipe, **experiment.distil.losses)
        teacher = teacher_of(place.workspace, dataset).to(device)
        family = Family.of(teacher.model)
        teacher_forward = count_macs(family, family.size)
        batches.remember(lambda images: teacher(images.to(device)), len(dataset.classes))
    anneals = cell.distilled and experiment.distil.anneals
    trainer = Trainer(model, recipe, steps=left, annealing=anneals, seed=cell.seed, device=device)
    rows: list[dict[str, Any]] = []
    for step in sorted({spent, *(s for s in cell.steps if s > spent)}):
        if step > spent:  # until=0 would mean: to the end
            for _ in trainer.run(lambda s: batches(spent + s), until=step - spent):
                pass
        images, seconds = step * rules.batch_size, round(time.perf_counter() - began, 2)
        test = eval_batches(*seen, mean=dataset.mean, std=dataset.std, batch_size=100)
        reached = accuracy(model, test, device)
        work = BACKWARD * forward * images
        work += start.teacher_macs * min(step, spent) * rules.batch_size
        work += teacher_forward * batches.taught
        measured = {"steps": step, "budget": total, "accuracy": reached, "seconds": seconds}
        rows.append({**named(cell), **measured, "images": images, "macs": work})
    return rows
