"""What training costs: image passes, and multiply-accumulates of a size and of stage 1."""

import math
from collections import Counter

from pipelines.config.experiment import Experiment
from pipelines.data.batches import remembers
from pipelines.data.dataset import Dataset
from pipelines.stages import distil
from wave.family import Family
from wave.measure import macs
from wave.spec import TargetSpec

_counted: dict[tuple[str, TargetSpec], int] = {}  # a comparison asks for each size once a variant
_DRAWN = 2000  # steps whose sizes are drawn, for their mean cost
BACKWARD = 3  # a training step costs about three forward passes


def count_macs(family: Family, size: TargetSpec) -> int:
    """Multiply-accumulates of one image's forward pass at a size; nothing is allocated."""
    full = family.resolve(size)
    key = (repr(family), full)
    if key not in _counted:
        _counted[key] = macs(family.create(full, device="meta"), full.img_size or 0, family.in_chans)
    return _counted[key]


def stage1_cost(experiment: Experiment, family: Family, dataset: Dataset) -> tuple[int, float]:
    """Image passes through models in training, and multiply-accumulates with the teacher's forward passes.

    Each step reads its batch at every size that is drawn, and at the auxiliary one where that reads every batch.
    """
    rules, own = experiment.distil, count_macs(family, family.size)
    images = rules.recipe.num_images(dataset.num_rows("train"))
    draw = distil.sampler(experiment)
    few = range(min(images // rules.recipe.batch_size, _DRAWN))
    often = Counter(size for step in few for size in draw(step)) if draw else Counter[TargetSpec]()
    drawn = sum(count_macs(family, size) * times for size, times in often.items()) / len(few)
    taught = images if rules.feature_weight else _teacher_passes(experiment, dataset, images, rules.worker_range[1])
    return images * rules.passes, BACKWARD * (rules.reads_auxiliary * own + drawn) * images + own * taught


def baseline_steps(experiment: Experiment, family: Family, dataset: Dataset) -> int:
    """Steps of stage 1 of a baseline that has one, all of them at the ancestor's size.

    They are the fewest with neither fewer image passes nor fewer multiply-accumulates than ours.
    """
    ours, work = stage1_cost(experiment, family, dataset)
    own, batch = count_macs(family, family.size), experiment.distil.recipe.batch_size
    images = max(ours, (work / own - _teacher_passes(experiment, dataset, ours, 1)) / BACKWARD)
    return math.ceil(images / batch)


def baseline_cost(experiment: Experiment, family: Family, dataset: Dataset) -> tuple[int, float]:
    """Image passes and multiply-accumulates of :func:`baseline_steps`, the teacher's with them."""
    images = baseline_steps(experiment, family, dataset) * experiment.distil.recipe.batch_size
    work = BACKWARD * images + _teacher_passes(experiment, dataset, images, 1)
    return images, count_macs(family, family.size) * work


def _teacher_passes(experiment: Experiment, dataset: Dataset, images: int, workers: int) -> float:
    """Images that the teacher reads: all, or where logits are remembered each one once per worker that
    meets it."""
    recipe, rows = experiment.distil.recipe, dataset.num_rows("train")
    if not recipe.kl_weight:
        return 0.0
    if not remembers(dataset, experiment.data, recipe):
        return float(images)
    if images <= rows:
        return float(images)
    # In each epoch an image goes to one of the workers: what one of them has not met after all epochs.
    never_met = (1 - 1 / workers) ** (images / rows)
    return rows * workers * (1 - never_met)
