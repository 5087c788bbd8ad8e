"""What training costs: image passes, and multiply-accumulates of a size and of stage 1."""

from functools import cache

from wave.measure import macs
from wave.spec import TargetSpec
from wave.vit import Family

from . import distil
from .config import Experiment

_DRAWN = 2000  # steps whose sizes are drawn, for their mean cost
BACKWARD = 3  # a training step costs about three forward passes


def count_macs(family: Family, size: TargetSpec) -> int:
    """Multiply-accumulates of one image's forward pass at a size; nothing is allocated."""
    full = family.resolve(size)
    return macs(family.create(full, device="meta"), full.img_size or 0, family.in_chans)


def stage1_cost(experiment: Experiment, family: Family, steps_per_epoch: int) -> tuple[int, float]:
    """Image passes through models in training, and multiply-accumulates with the teacher's forward passes.

    Each step reads its batch at every size that is drawn, and at the auxiliary one unless that is switched off.
    """
    rules, own = experiment.distil, count_macs(family, family.size)
    images = _stage1_images(experiment, steps_per_epoch)
    draw, cost = distil.sampler(experiment), cache(lambda size: count_macs(family, size))
    steps = range(min(rules.recipe.total_steps(steps_per_epoch), _DRAWN))
    drawn = sum(cost(size) for step in steps for size in draw(step)) / len(steps) if draw else 0.0
    return images * rules.passes, (BACKWARD * (rules.auxiliary * own + drawn) + own) * images


def rival_cost(experiment: Experiment, family: Family, steps_per_epoch: int) -> tuple[int, float]:
    """The same of the stage 1 of a rival that has one: all its steps at the ancestor's size, as many image passes as
    ours makes."""
    images = _stage1_images(experiment, steps_per_epoch) * experiment.distil.passes
    return images, float((BACKWARD + 1) * count_macs(family, family.size) * images)


def _stage1_images(experiment: Experiment, steps_per_epoch: int) -> int:
    """Images that stage 1 reads, each of them once."""
    recipe = experiment.distil.recipe
    return recipe.total_steps(steps_per_epoch) * recipe.batch_size
