"""TemplatedLinear owns scalers and bias, and builds its weight from the bank's templates in every forward."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .bank import TemplateBank, factor_std
from .kron import kron_sum
from .shape import Shape
from .spec import AXES, Kind


class TemplatedLinear(nn.Module):
    """``y = x W^T + bias`` with ``W = kron_sum(bank(kind), scalers)``, cropped to ``shape`` where its lengths are not
    whole blocks and template heads (ours); scalers have shape (N, p, q).

    Not an ``nn.Linear``: timm's initialisers would fill a weight that is never read. The bank is kept outside the
    module's registry, so that templates stand once in a state dict and DDP sees each parameter once.
    """

    scalers: Tensor
    bias: Tensor | None

    def __init__(self, bank: TemplateBank, kind: Kind, shape: Shape, bias: bool, device: str | None = None) -> None:
        super().__init__()
        self.kind: Kind = kind
        self.shape, self.outer = shape, bank.spec.enclosing(shape)
        grid, count = bank.spec.grid(kind, shape), bank.spec.counts[kind]
        self.out_features, self.in_features = (shape.length(axis) for axis in AXES[kind])
        self.scalers = nn.Parameter(torch.randn(count, *grid, device=device) * factor_std(count))
        self.bias = nn.Parameter(torch.zeros(self.out_features, device=device)) if bias else None
        self.__dict__["bank"] = bank

    @property
    def weight(self) -> Tensor:
        """The dense weight, (out_features, in_features), always built in float32: under autocast it would be off by
        about 0.6 % from the one that is exported."""
        bank: TemplateBank = self.__dict__["bank"]
        with torch.autocast(self.scalers.device.type, enabled=False):
            weight = kron_sum(bank(self.kind), self.scalers, bank.spec.order)
        if self.outer != self.shape:
            for dim, axis in enumerate(AXES[self.kind]):
                weight = self.shape.crop(weight, dim, axis, self.outer)
        return weight

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.kind}, in_features={self.in_features}, out_features={self.out_features}"
