"""Kaiming's random start: every layer keeps the variance of its input."""

from torch import Tensor, nn

from ..family import Family
from ..seeding import seeded
from ..spec import TargetSpec
from ..train import Batches
from .base import Baseline, any_size, dense_state


def initialise(
    ancestor: nn.Module,
    family: Family,
    target: TargetSpec,
    seed: int,
    batches: Batches | None = None,
) -> dict[str, Tensor]:
    """Draw ``W ~ N(0, 2 / fan_in)``, biases zero, for linear layers and the patch embedding.

    He et al., ICCV 2015. Nothing comes from the ancestor, not even the classifier. Norms, tokens
    and position embedding start as in timm, since the paper has none of them (ours).
    """
    with seeded(seed):
        model = family.create(target)
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        return dense_state(model)


BASELINE = Baseline("kaiming", initialise, reach=any_size)
