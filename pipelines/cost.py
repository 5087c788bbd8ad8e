"""What training costs: image passes, and multiply-accumulates of a size and of stage 1."""

from collections.abc import Mapping
from functools import cache

from wave.baselines import BASELINES
from wave.baselines.base import anything
from wave.measure import macs
from wave.spec import TargetSpec
from wave.vit import Family

from .config import Experiment

BACKWARD = 3  # a training step costs about three forward passes


def count_macs(family: Family, size: TargetSpec) -> int:
    """Multiply-accumulates of one image's forward pass at a size; nothing is allocated."""
    full = family.resolve(size)
    return macs(family.create(full, device="meta"), full.img_size or 0, family.in_chans)


def stage1_cost(experiment: Experiment, family: Family, steps_per_epoch: int) -> tuple[int, float]:
    """Image passes through models in training, and multiply-accumulates with the teacher's forward passes.

    Each step reads its batch at the auxiliary size and at every sampled size.
    """
    rules, own = experiment.distil, count_macs(family, family.size)
    images = _stage1_images(experiment, steps_per_epoch)
    sampled = [count_macs(family, s) for s in rules.sizes.specs()] if rules.sizes else []
    per_step = rules.sizes_per_step if sampled else 0
    extra = per_step * sum(sampled) / len(sampled) if sampled else 0.0
    return images * (1 + per_step), (BACKWARD * (own + extra) + own) * images


def rival_cost(experiment: Experiment, family: Family, steps_per_epoch: int) -> tuple[int, float]:
    """The same of the stage 1 of a rival that has one: all its steps at the ancestor's size, as many image passes as
    ours makes."""
    rules = experiment.distil
    images = _stage1_images(experiment, steps_per_epoch) * (1 + (rules.sizes_per_step if rules.sizes else 0))
    return images, float((BACKWARD + 1) * count_macs(family, family.size) * images)


def stages_cost(
    experiments: Mapping[str, Experiment], family: Family, steps_per_epoch: int
) -> list[tuple[str, int, float]]:
    """Name, image passes and multiply-accumulates of the stages 1 that a comparison needs besides ours: one for all
    variants with the same templates and stage 1, and one a rival that has one. ``experiments`` are by method."""
    own = experiments[""]
    methods = dict.fromkeys(method for study in own.evaluate.studies for method in study.methods)
    seen = [(own.templates, own.distil)]
    variants: list[tuple[int, float]] = []
    for method in methods:
        other = experiments.get(method, own)
        if (other.templates, other.distil) not in seen:
            seen.append((other.templates, other.distil))
            variants.append(stage1_cost(other, family, steps_per_epoch))
    rivals = [m for m in methods if m in BASELINES and BASELINES[m].stage1 is not None]
    each = [rival_cost(own, family, steps_per_epoch)] * len(rivals)
    named = ((f"stage 1 of {len(variants)} variants", variants), (f"stage 1 of {len(rivals)} rivals", each))
    return [(name, sum(c[0] for c in costs), sum(c[1] for c in costs)) for name, costs in named if costs]


def _stage1_images(experiment: Experiment, steps_per_epoch: int) -> int:
    """Images that stage 1 reads, each of them once."""
    recipe = experiment.distil.recipe
    return recipe.total_steps(steps_per_epoch) * recipe.batch_size


def comparison_cost(experiment: Experiment, family: Family, test_images: int) -> tuple[int, int, float]:
    """Cells of ``[evaluate]``, their image passes in training, and multiply-accumulates with those of measuring.

    An upper bound: what is already there, and cells that two studies share, are counted too. For stages 1 see
    :func:`stages_cost`.
    """
    rules = experiment.evaluate
    cells, images, work = 0, 0, 0.0
    forward = cache(lambda size: count_macs(family, size))
    for study in rules.studies:
        rates = study.learning_rates or rules.learning_rates
        for method in study.methods:
            reach = BASELINES[method].reach if method in BASELINES else anything
            sizes = [TargetSpec(size.embed_dim, size.depth) for size in study.sizes]
            reached = [family.resolve(size) for size in sizes if reach(family.size, size) is None]
            trials = reached[:1] * (len(rates) if len(rates) > 1 else 0)
            for size in [*trials, *reached * len(study.seeds)]:
                passes = max(study.steps) * rules.batch_size
                measured = (1 + len(study.steps)) * test_images
                cells, images = cells + 1, images + passes
                work += (BACKWARD * passes + measured) * forward(size)
    return cells, images, work
