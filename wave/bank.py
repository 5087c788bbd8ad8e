"""TemplateBank owns the templates, shared by all layers and all sizes."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .errors import WaveError
from .spec import KINDS, Kind
from .template_spec import TemplateSpec


class TemplateBank(nn.Module):
    """The templates of all kinds: parameters ``qkv``, ``proj``, ``fc1``, ``fc2``, each (N, a, b).

    Args:
        spec: Shape and number of the templates of each kind.
        tensors: Their values, copied as float32; by default they are drawn from a normal
            distribution with the standard deviation :func:`factor_std`.
        generator: Where random values come from.

    Raises:
        WaveError: A tensor does not have the shape that ``spec`` says.

    >>> bank = TemplateBank(TemplateSpec.uniform(head_dim=16, count=8))
    >>> bank("qkv").shape
    torch.Size([8, 16, 16])
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
                given = tensors[kind].detach().to(torch.float32)
                value = given.clone(memory_format=torch.contiguous_format)
            if value.shape != shape:
                found = tuple(value.shape)
                raise WaveError(
                    f"templates of {kind} have shape {found}; the specification says {shape}"
                )
            self.register_parameter(kind, nn.Parameter(value))

    def forward(self, kind: Kind) -> Tensor:
        """Return the templates of one kind, (N, a, b)."""
        templates: Tensor = getattr(self, kind)
        return templates


def factor_std(count: int, weight_std: float = 0.02) -> float:
    """Return the standard deviation of both factors that gives weights ``weight_std``.

    A product of two independent normals has variance ``s^4``, and a sum of N of them ``N s^4``;
    hence ``s = sqrt(weight_std / sqrt(N))`` (ours). The default is timm's for linear layers.
    """
    return math.sqrt(weight_std / math.sqrt(count))
