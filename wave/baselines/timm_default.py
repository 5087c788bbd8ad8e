"""timm's own random start: the floor that every other method has to beat."""

from torch import Tensor, nn

from ..family import Family
from ..spec import TargetSpec
from .base import Baseline, Batches, anything, fresh


def initialise(
    ancestor: nn.Module, family: Family, target: TargetSpec, seed: int, batches: Batches | None = None
) -> dict[str, Tensor]:
    """Nothing of the ancestor, the classifier included.

    Every linear weight is a normal of standard deviation 0.02 cut at two, biases zero, norms one, position embedding
    as the weights, class token almost zero (timm, ``init_weights_vit_timm``; ``vit_*`` architectures).
    """
    return fresh(family, target, seed)


BASELINE = Baseline("timm_default", initialise, anything)
