"""TemplateBank owns the templates, one stack of shape (N, a, b) a kind, shared by all layers and all sizes."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .errors import WaveError
from .spec import KINDS, Kind, TemplateSpec


class TemplateBank(nn.Module):
    """Templates as parameters ``qkv``, ``proj``, ``fc1``, ``fc2``; ``bank(kind)`` gives one stack, float32.

    Without ``tensors`` they are drawn normal with the standard deviation :func:`factor_std`. Raises
    :class:`WaveError` when a given tensor does not have the shape of the specification.
    """

    def __init__(
        self,
        spec: TemplateSpec,
        tensors: Mapping[Kind, Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        for kind in KINDS:
            shape = (spec.counts[kind], *spec.blocks[kind])
            if tensors is None:
                value = torch.randn(shape, generator=generator) * factor_std(spec.counts[kind])
            else:
                value = tensors[kind].detach().to(torch.float32).clone(memory_format=torch.contiguous_format)
                if value.shape != shape:
                    found = tuple(value.shape)
                    raise WaveError(f"templates of {kind} have shape {found}; the specification says {shape}")
            self.register_parameter(kind, nn.Parameter(value))

    def forward(self, kind: Kind) -> Tensor:
        """The templates of one kind, shape (N, a, b)."""
        templates: Tensor = getattr(self, kind)
        return templates


def factor_std(count: int, weight_std: float = 0.02) -> float:
    """Standard deviation of both factors so that a sum of ``count`` products has ``weight_std`` (timm's default)."""
    return math.sqrt(weight_std / math.sqrt(count))
