"""What a run will cost before it starts: sizes, parameters, multiply-accumulates, and time on this machine."""

import os
import time
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from wave.measure import num_parameters
from wave.vit import Family

from . import ancestor, preflight
from .config import load
from .convert import prepared
from .cost import BACKWARD, comparison_cost, count_macs, stage1_cost, stages_cost
from .evaluate import variants
from .loader import training_batches
from .results import show_plan
from .session import say
from .workspace import Workspace, absolute


def plan(file: str, overrides: Sequence[str]) -> int:
    """Print every size with its cost, and the stages' image passes, multiply-accumulates and minutes on this machine.

    The minutes are those of this machine's CPUs, all of them busy, from a few seconds of real training at the
    ancestor's size; on a cluster divide by its speed. Raises :class:`WaveError` as ``run`` would.
    """
    experiment = load(file, overrides)
    dataset = prepared(experiment.data, say)
    workspace = Workspace(absolute(experiment.output, "output"))
    experiment = ancestor.pinned(experiment)
    family = Family.of(preflight.check(experiment, dataset, workspace).model)
    spec = experiment.templates.spec(family.head_dim, family.mlp_ratio)
    cost = {family.size: count_macs(family, family.size)}
    rows: list[tuple[str, int, int, int]] = []
    for target in experiment.target_specs():
        full = family.resolve(target)
        cost[full] = count_macs(family, full)
        parameters = num_parameters(family.create(full, device="meta"))
        rows.append((target.name, parameters, cost[full], spec.num_scalers(full)))
    rate = _rate(family, cost[family.size])
    stages: list[tuple[str, int, float]] = []
    epoch = training_batches(dataset, experiment.data, experiment.distil.recipe.batch_size, 0).steps_per_epoch
    own = cost[family.size]
    if experiment.ancestor.recipe is not None:
        images = experiment.ancestor.recipe.total_steps(epoch) * experiment.ancestor.recipe.batch_size
        stages.append(("ancestor", images, BACKWARD * own * images))
    stages.append(("stage 1", *stage1_cost(experiment, family, epoch)))
    recipe = experiment.initialise.recipe
    if recipe is not None:
        images = recipe.total_steps(epoch) * recipe.batch_size * (2 if experiment.initialise.compare_scratch else 1)
        total = sum(cost[family.resolve(t)] for t in experiment.target_specs())
        stages.append((f"stage 2, {len(rows)} sizes", images * len(rows), float(BACKWARD * total * images)))
    if experiment.evaluate.studies:
        stages += stages_cost(variants(experiment), family, epoch)
        cells, images, work = comparison_cost(experiment, family, dataset.num_rows("test"))
        stages.append((f"evaluate, {cells} cells", images, work))
    share = spec.num_parameters() / num_parameters(family.create(family.size, device="meta"))
    say(f"templates: {spec.num_parameters()} parameters, {share:.1%} of the ancestor's")
    show_plan(rows, [(name, count, work, work / rate / 60) for name, count, work in stages])
    return 0


def _rate(family: Family, forward: int, seconds: float = 3.0) -> float:
    """Multiply-accumulates per second of training on all CPUs, from ``seconds`` of it at the ancestor's size."""
    torch.set_num_threads(os.cpu_count() or 1)
    model, size = family.create(family.size), family.size.img_size or 0
    images, labels = torch.randn(32, family.in_chans, size, size), torch.zeros(32, dtype=torch.long)
    F.cross_entropy(model(images), labels).backward()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        F.cross_entropy(model(images), labels).backward()
        done += len(images)
    return BACKWARD * forward * done / (time.perf_counter() - start)
