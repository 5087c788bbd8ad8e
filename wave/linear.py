"""TemplatedLinear owns scalers and bias, and builds its weight from the bank's templates in every forward."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .bank import TemplateBank, factor_std
from .kron import kron_sum
from .spec import Kind


class TemplatedLinear(nn.Module):
    """``y = x W^T + bias`` with ``W = kron_sum(bank(kind), scalers)``; scalers have shape (N, p, q).

    Not an ``nn.Linear``: timm's initialisers would fill a weight that is never read. The bank is kept outside the
    module's registry, so that templates stand once in a state dict and DDP sees each parameter once.
    """

    scalers: Tensor
    bias: Tensor | None

    def __init__(self, bank: TemplateBank, kind: Kind, embed_dim: int, bias: bool, device: str | None = None) -> None:
        super().__init__()
        self.kind: Kind = kind
        self.embed_dim = embed_dim
        grid = bank.spec.grid(kind, embed_dim)
        count, (rows, columns) = bank.spec.counts[kind], bank.spec.blocks[kind]
        self.out_features, self.in_features = grid[0] * rows, grid[1] * columns
        self.scalers = nn.Parameter(torch.randn(count, *grid, device=device) * factor_std(count))
        self.bias = nn.Parameter(torch.zeros(self.out_features, device=device)) if bias else None
        self.__dict__["bank"] = bank

    @property
    def weight(self) -> Tensor:
        """The dense weight, (out_features, in_features), always built in float32: under autocast it would be off by
        about 0.6 % from the one that is exported."""
        bank: TemplateBank = self.__dict__["bank"]
        with torch.autocast(self.scalers.device.type, enabled=False):
            return kron_sum(bank(self.kind), self.scalers, bank.spec.order)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.kind}, in_features={self.in_features}, out_features={self.out_features}"
