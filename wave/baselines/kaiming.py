"""Kaiming's random start: every layer keeps the variance of its input."""

from torch import Tensor, nn

from ..family import Family
from ..seeding import seeded
from ..spec import TargetSpec
from .base import Baseline, Batches, anything, dense


def initialise(
    ancestor: nn.Module, family: Family, target: TargetSpec, seed: int, batches: Batches | None = None
) -> dict[str, Tensor]:
    """Nothing of the ancestor, the classifier included.

    ``W ~ N(0, 2 / fan_in)`` and biases zero for every linear layer and the patch embedding (He et al., ICCV
    2015). Norms, tokens and position embedding start as in timm: the paper has none of them (ours).
    """
    with seeded(seed):
        model = family.create(target)
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        return dense(model)


BASELINE = Baseline("kaiming", initialise, anything)
