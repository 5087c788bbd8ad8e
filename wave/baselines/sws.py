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
    """One-hot scalers (L, count): layer l belongs to stage ``floor((l + 1/2) * count / L)``.

    Xia et al., Stage-wise Weight Sharing, IJCAI 2024. For 16 layers and 5 stages this is the released split 3, 3, 4,
    3, 3; the formula for other depths is ours, and so is a target with fewer layers than stages, which skips some.
    """
    stage = (2 * torch.arange(depth) + 1) * count // (2 * depth)
    return F.one_hot(stage, count).float()


def num_stages(depth: int) -> int:
    """Stages of an auxiliary model: 5 for 16 layers as released, in proportion otherwise, at least 2 (ours)."""
    return min(max(round(depth * RELEASED[0] / RELEASED[1]), 2), depth)


def rule_of(family: Family) -> Rule:
    """As many stages as the auxiliary model has, which is as deep as the ancestor."""
    return partial(stages, count=num_stages(family.size.depth))


BASELINE = stage1_baseline("sws", rule_of)
