"""Heur-LG: the ancestor's last layers on top of random ones."""

from torch import Tensor, nn

from ..family import Family
from ..spec import TargetSpec
from ..train import Batches
from .base import Baseline, check_reach, dense_state, depth_only, fresh_state

SHARE = 0.25
"""Part of the ancestor's layers that is inherited (ours: 3 of 12)."""


def num_inherited(source: int, target: int) -> int:
    """Return how many layers are taken from the top of the ancestor, 1 to ``target``."""
    return min(max(round(source * SHARE), 1), target)


def initialise(
    ancestor: nn.Module,
    family: Family,
    target: TargetSpec,
    seed: int,
    batches: Batches | None = None,
) -> dict[str, Tensor]:
    """Inherit the last n layers, ``blocks[L' - i] = ancestor.blocks[L - i]`` for i = 1..n.

    A learngene is a few whole layers of the ancestor, taken from its end, with random layers below
    (Wang et al., Learngene, AAAI 2022; Wang et al., arXiv 2305.02279). Its descendants meet other
    tasks, so everything else, the classifier and embeddings too, is drawn as timm does. How many
    layers is a choice of ours (:data:`SHARE`). Depth only.
    """
    check_reach("heur_lg", depth_only, family=family, target=target)
    state, source = fresh_state(family, target, seed=seed), dense_state(ancestor)
    count = num_inherited(family.size.depth, target.depth)
    for i in range(1, count + 1):
        old, new = f"blocks.{family.size.depth - i}.", f"blocks.{target.depth - i}."
        for name, value in source.items():
            if name.startswith(old):
                state[new + name.removeprefix(old)] = value
    return state


BASELINE = Baseline("heur_lg", initialise, reach=depth_only)
