"""Heur-LG: the ancestor's last layers on top of random ones."""

from torch import Tensor, nn

from ..family import Family
from ..spec import TargetSpec
from .base import Baseline, Batches, check_reach, dense, depth_only, fresh

SHARE = 0.25
"""Part of the ancestor's layers that is inherited (ours: 3 of 12)."""


def num_inherited(source: int, target: int) -> int:
    """Layers taken from the top of the ancestor; at least one, and no more than the target has."""
    return min(max(round(source * SHARE), 1), target)


def initialise(
    ancestor: nn.Module, family: Family, target: TargetSpec, seed: int, batches: Batches | None = None
) -> dict[str, Tensor]:
    """``blocks[L' - i] = ancestor.blocks[L - i]`` for i = 1..n; everything else is drawn as timm does.

    A learngene is a few whole layers of the ancestor, taken from its end, with random layers stacked below (Wang et
    al., Learngene, AAAI 2022; Wang et al., arXiv 2305.02279). Its descendants meet other tasks, so classifier,
    embeddings and final norm are drawn anew. How many layers is a choice of ours (:data:`SHARE`). Depth only.
    """
    check_reach("heur_lg", depth_only, family, target)
    state, source = fresh(family, target, seed), dense(ancestor)
    count = num_inherited(family.size.depth, target.depth)
    for i in range(1, count + 1):
        old, new = f"blocks.{family.size.depth - i}.", f"blocks.{target.depth - i}."
        state |= {new + name.removeprefix(old): value for name, value in source.items() if name.startswith(old)}
    return state


BASELINE = Baseline("heur_lg", initialise, depth_only)
