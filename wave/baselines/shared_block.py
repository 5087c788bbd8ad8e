"""One shared block: all layers are the same layer."""

import torch
from torch import Tensor

from ..family import Family
from .stage1 import Rule, stage1_baseline


def one_block(depth: int) -> Tensor:
    """Return the scalers of ``theta[l] = theta``: ones, (L, 1).

    The limit of weight sharing (Universal Transformer, Dehghani et al., ICLR 2019; ALBERT, Lan et
    al., ICLR 2020), here trained like every stage 1 and repeated to any depth (ours). Norms and
    biases are shared too.

    >>> one_block(3).tolist()
    [[1.0], [1.0], [1.0]]
    """
    return torch.ones(depth, 1)


def rule_of(family: Family) -> Rule:
    """Return the same rule whatever the auxiliary model's depth."""
    return one_block


BASELINE = stage1_baseline("shared_block", rule_of)
