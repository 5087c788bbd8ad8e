"""SWS: layers of one stage are one layer, repeated."""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from ..family import Family
from .stage1 import Rule, stage1_baseline

RELEASED = (5, 16)
"""Stages and layers of the released auxiliary models."""


def stages(depth: int, count: int) -> Tensor:
    """Return one-hot scalers (L, count): layer l is of stage ``floor((l + 1/2) * count / L)``.

    Xia et al., Stage-wise Weight Sharing, IJCAI 2024. For 16 layers and 5 stages this is the
    released split 3, 3, 4, 3, 3. The formula for other depths is ours; a target with fewer layers
    than stages skips some.

    >>> stages(5, 2).argmax(1).tolist()
    [0, 0, 1, 1, 1]
    """
    # In whole numbers, (2l + 1) * count / (2L): rounding never decides a layer's stage.
    stage = (2 * torch.arange(depth) + 1) * count // (2 * depth)
    return F.one_hot(stage, count).float()


def num_stages(depth: int) -> int:
    """Return the stages of an auxiliary model: 5 per 16 layers as released, at least 2 (ours)."""
    stages_released, layers_released = RELEASED
    return min(max(round(depth * stages_released / layers_released), 2), depth)


def rule_of(family: Family) -> Rule:
    """Return the rule of an auxiliary model, which is as deep as the ancestor."""
    return partial(stages, count=num_stages(family.size.depth))


BASELINE = stage1_baseline("sws", rule_of)
