"""What a run will cost before it starts: sizes, parameters, multiply-accumulates, and time on this machine."""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch.nn import functional as F

from pipelines.ancestors.source import pinned
from pipelines.comparison.cells import OURS, Cell
from pipelines.comparison.starting_points import template_owners
from pipelines.comparison.study_cells import StudyCells
from pipelines.comparison.variants import variants
from pipelines.config.experiment import Experiment, load
from pipelines.config.machine import cpus
from pipelines.data.convert.convert import prepared
from pipelines.data.dataset import Dataset
from pipelines.runtime.console import plain_table, say, short_number
from pipelines.runtime.files import absolute
from pipelines.runtime.workspace import Workspace
from pipelines.stages import preflight
from pipelines.stages.cost import BACKWARD, baseline_cost, count_macs, stage1_cost
from wave.baselines import BASELINES
from wave.family import Family
from wave.measure import num_parameters

_MEASURED = 4
"""CPUs that a rate is measured on at most."""


def plan(file: str, overrides: Sequence[str]) -> int:
    """Print every size with its cost, and the stages' image passes, operations and minutes here.

    The minutes are those of this machine's CPUs, all of them busy, from a few seconds of real
    training at the ancestor's size; on a cluster divide by its speed. Raises :class:`WaveError` for
    what ``run`` refuses before it starts Ray or MLflow, but for what only this machine is too small
    for.
    """
    experiment = load(file, overrides)
    dataset = prepared(experiment.data, say)
    workspace = Workspace(absolute(experiment.output, "output"))
    experiment = pinned(experiment)
    family = Family.of(preflight.check_run(experiment, dataset, workspace).model)
    spec = experiment.templates.spec(family.head_dim, family.mlp_ratio)
    rows: list[tuple[str, int, int, int]] = []
    for target in experiment.target_specs():
        full = family.resolve(target)
        parameters = num_parameters(family.create(full, device="meta"))
        rows.append((target.name, parameters, count_macs(family, full), spec.num_scalers(full)))
    own, train_images = count_macs(family, family.size), dataset.num_rows("train")
    rate = _rate(family, own)
    stages: list[tuple[str, int, float]] = []
    if experiment.ancestor.recipe is not None:
        images = experiment.ancestor.recipe.num_images(train_images)
        stages.append(("ancestor", images, BACKWARD * own * images))
    stages.append(("stage 1", *stage1_cost(experiment, family, dataset)))
    recipe = experiment.initialise.recipe
    if recipe is not None:
        images = recipe.num_images(experiment.initialise.images_of(train_images))
        images *= 2 if experiment.initialise.compare_scratch else 1
        total = sum(macs for _, _, macs, _ in rows)
        stages.append((f"stage 2, {len(rows)} sizes", images * len(rows), float(BACKWARD * total * images)))
    if experiment.evaluate.studies:
        stages += stages_cost(variants(experiment), family, dataset)
        cells, images, work = comparison_cost(experiment, family, dataset.num_rows("test"))
        stages.append((f"evaluate, {cells} cells", images, work))
    share = spec.num_parameters() / num_parameters(family.create(family.size, device="meta"))
    say(f"templates: {spec.num_parameters()} parameters, {share:.1%} of the ancestor's")
    show_plan(rows, [(name, count, work, work / rate / 60) for name, count, work in stages])
    return 0


def _rate(family: Family, forward: int, seconds: float = 3.0) -> float:
    """Multiply-accumulates per second of training at the ancestor's size.

    They are measured for ``seconds`` on every CPU at once, one model each, as cells and workers
    train; of more than :data:`_MEASURED` CPUs on that many.
    """
    count, size = cpus(), family.size.img_size or 0
    workers = min(count, _MEASURED)
    batch = max(4, min(32, 50_000 // size**2)) if size else 4
    torch.set_num_threads(1)

    def one(_: int) -> float:
        model, done = family.create(family.size), 0
        images, labels = torch.randn(batch, family.in_chans, size, size), torch.zeros(batch, dtype=torch.long)
        F.cross_entropy(model(images), labels).backward()
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            F.cross_entropy(model(images), labels).backward()
            done += batch
        return BACKWARD * forward * done / (time.perf_counter() - start)

    with ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(one, range(workers))) * count / workers


def stages_cost(
    experiments: Mapping[str, Experiment], family: Family, dataset: Dataset
) -> list[tuple[str, int, float]]:
    """Name, image passes and multiply-accumulates of stage 1 of the variants and of the baselines.

    Variants that share templates share one. ``experiments`` are by method.
    """
    own = experiments[""]
    methods = dict.fromkeys(method for study in own.evaluate.studies for method in study.methods)
    owner = template_owners(experiments, {"key": ""})
    needed = dict.fromkeys(owner[m] for m in methods if owner.get(m, OURS) != OURS)
    variants = [stage1_cost(experiments[m], family, dataset) for m in needed]
    baselines = [m for m in methods if m in BASELINES and BASELINES[m].stage1 is not None]
    each = [baseline_cost(own, family, dataset)] * len(baselines)
    found: list[tuple[str, int, float]] = []
    for what, costs in (("variants", variants), ("baselines", each)):
        if costs:
            images, work = (sum(column) for column in zip(*costs, strict=True))
            found.append((f"stage 1 of {len(costs)} {what}", int(images), work))
    return found


def comparison_cost(experiment: Experiment, family: Family, test_images: int) -> tuple[int, int, float]:
    """Cells of ``[evaluate]``, their image passes in training, and operations with those of measuring.

    What is already there is counted too, and cells that two studies share once. For stage 1 see
    :func:`stages_cost`.
    """
    rules = experiment.evaluate
    cells: list[Cell] = []
    for study in rules.studies:
        transfer = study.data is not None
        rates = rules.learning_rates
        own = StudyCells(study, family.size, rates=rates, dataset="", transfer=transfer)
        cells += own.needed_trials()
        cells += own.measured(dict.fromkeys(own.trials(), own.rates[0]))
    images, work = 0, 0.0
    unique = dict.fromkeys(cells)
    for cell in unique:
        passes = max(cell.steps) * rules.batch_size
        images += passes
        work += (BACKWARD * passes + len({0, *cell.steps}) * test_images) * count_macs(family, cell.target)
    return len(unique), images, work


def show_plan(sizes: Sequence[tuple[str, int, int, int]], stages: Sequence[tuple[str, int, float, float]]) -> None:
    """Print a plan's sizes (name, parameters, MACs, scalers) and its stages (name, image passes, MACs,
    minutes)."""
    console, table = plain_table("size", "parameters", "MACs", "scalers")
    for name, *numbers in sizes:
        table.add_row(name, *map(short_number, numbers))
    console.print(table)
    console, table = plain_table("stage", "image passes", "MACs", "minutes here")
    for name, images, work, minutes in stages:
        table.add_row(name, short_number(images), short_number(work), f"{minutes:.1f}")
    table.add_row("all", "", "", f"{sum(stage[3] for stage in stages):.1f}")
    console.print(table)
