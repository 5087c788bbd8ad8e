"""TLEG: every layer is a linear function of its position."""

import torch
from torch import Tensor

from ..family import Family
from .stage1 import Rule, stage1_baseline


def linear_expansion(depth: int) -> Tensor:
    """Return the scalers of ``theta[l] = theta_B + (l / L) theta_A``: (1, l / L), (L, 2).

    Xia et al., Transformer as Linear Expansion of Learngene, AAAI 2024; l counts from 0 as in the
    released code, which expands norms and biases too. Depth only. Ours: the auxiliary model has the
    ancestor's depth, and is trained with the loss and the budget of our stage 1 (theirs: 150
    epochs, soft distillation from LeViT-384).

    >>> linear_expansion(2).tolist()
    [[1.0, 0.0], [1.0, 0.5]]
    """
    return torch.stack([torch.ones(depth), torch.arange(depth) / depth], dim=1)


def rule_of(family: Family) -> Rule:
    """Return the same rule whatever the auxiliary model's depth."""
    return linear_expansion


BASELINE = stage1_baseline("tleg", rule_of)
