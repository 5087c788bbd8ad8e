"""TemplatedLinear builds its weight from shared templates and its own scalers in every forward."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .bank import TemplateBank, factor_std
from .kron import kron_sum
from .shape import Shape
from .spec import AXES, Kind


class TemplatedLinear(nn.Module):
    """A linear layer ``y = x W^T + bias`` with ``W = kron_sum(bank(kind), scalers)``.

    Where the lengths of ``shape`` are not whole blocks and template heads, the weight of the
    enclosing shape is built and cropped (ours).

    Args:
        bank: Where the templates are; shared, and not a submodule of this layer.
        kind: Which of the four matrices of a block this is.
        shape: The lengths of the model's axes.
        bias: Whether the layer has a bias.
        device: Where scalers and bias are created.

    >>> from wave import TemplateSpec
    >>> bank = TemplateBank(TemplateSpec.uniform(head_dim=16, count=8))
    >>> layer = TemplatedLinear(bank, "fc1", Shape(32, heads=2, head_dim=16, hidden=128), bias=True)
    >>> layer.scalers.shape, layer.weight.shape
    (torch.Size([8, 8, 2]), torch.Size([128, 32]))
    """

    # Not a subclass of nn.Linear: timm's initialisers would fill a weight that nobody reads.

    scalers: Tensor
    bias: Tensor | None

    def __init__(
        self, bank: TemplateBank, kind: Kind, shape: Shape, bias: bool, device: str | None = None
    ) -> None:
        super().__init__()
        self.kind: Kind = kind
        self.shape = shape
        self.outer = bank.spec.enclosing(shape)
        count = bank.spec.counts[kind]
        grid = bank.spec.grid(kind, shape)
        self.out_features, self.in_features = (shape.length(axis) for axis in AXES[kind])
        self.scalers = nn.Parameter(torch.randn(count, *grid, device=device) * factor_std(count))
        self.bias = None
        if bias:
            self.bias = nn.Parameter(torch.zeros(self.out_features, device=device))
        # Kept out of the registry of submodules, so that a state dict holds the templates once and
        # DDP sees each parameter once.
        self.__dict__["bank"] = bank

    @property
    def weight(self) -> Tensor:
        """The dense weight, (out_features, in_features), float32."""
        bank: TemplateBank = self.__dict__["bank"]
        # Under autocast the weight would be off by about 0.6 % from the one that is exported.
        with torch.autocast(self.scalers.device.type, enabled=False):
            weight = kron_sum(bank(self.kind), self.scalers, bank.spec.order)
        if self.outer != self.shape:
            for dim, axis in enumerate(AXES[self.kind]):
                weight = self.shape.crop(weight, dim, axis=axis, outer=self.outer)
        return weight

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Describe the layer in the model's printed form."""
        return f"{self.kind}, in_features={self.in_features}, out_features={self.out_features}"
