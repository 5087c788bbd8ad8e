"""timm's own random start: the floor that every other method has to beat."""

from torch import Tensor, nn

from ..family import Family
from ..spec import TargetSpec
from ..train import Batches
from .base import Baseline, any_size, fresh_state


def initialise(
    ancestor: nn.Module,
    family: Family,
    target: TargetSpec,
    seed: int,
    batches: Batches | None = None,
) -> dict[str, Tensor]:
    """Draw everything as timm does, the classifier included; nothing comes from the ancestor.

    Linear weights are normal with standard deviation 0.02, cut at two; biases are zero, norms one;
    the position embedding is drawn as the weights, and the class token almost zero (timm,
    ``init_weights_vit_timm``; architectures ``vit_*``).
    """
    return fresh_state(family, target, seed=seed)


BASELINE = Baseline("timm_default", initialise, reach=any_size)
