"""WidthMap: which channel, head, hidden unit or block of scalers of one shape each of another is read off (ours).

One block map on every axis (residual stream, heads, MLP hidden axis), the same in all layers, keeps the residual stream
consistent; lengths that are not whole blocks and heads are those of the enclosing shape, cropped.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import torch
from torch import Tensor

from .errors import WaveError
from .shape import Axis, Shape
from .spec import TemplateSpec

Width = Literal["leading", "even"]
WidthScale = Literal["auto", "sqrt", "copies", "none"]
Symmetry = Literal["none", "split", "noise"]
GROWING: tuple[Axis, ...] = ("embed", "attn", "hidden")


def block_map(source: int, target: int, width: Width = "leading") -> list[int]:
    """Source block of each target block: the leading ones, and when growing again from the first; or even selection
    and contiguous copies."""
    return [i % source if width == "leading" else i * source // target for i in range(target)]


class WidthOptions(Protocol):
    """What a :class:`WidthMap` reads of :class:`wave.resampling.Resampling`."""

    @property
    def width(self) -> Width: ...
    @property
    def width_scale(self) -> WidthScale: ...
    @property
    def symmetry(self) -> Symmetry: ...
    @property
    def strength(self) -> float: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True)
class WidthMap:
    """The width map of one pair of shapes: indices of channels and of scalers along each axis."""

    spec: TemplateSpec
    source: Shape
    target: Shape
    options: WidthOptions

    def __post_init__(self) -> None:
        self.spec.check(self.source, whole=True)
        self.spec.check(self.target)
        for axis, name in zip(GROWING, ("embed_dim", "heads' width", "mlp hidden width"), strict=True):
            lengths, unit = (self.source.length(axis), self.outer.length(axis)), self.spec.unit(axis)
            wrong = [n for n in lengths if n % unit] if lengths[0] != lengths[1] else []
            if wrong:
                raise WaveError(
                    f"{name} {wrong[0]} is not a multiple of {unit}, the unit of these templates' width map; "
                    f"they can change the depth only: use embed_dim={self.source.embed}"
                )
        if self.spec.order == "interleave" and len(set(self.spec.blocks.values())) > 1:
            raise WaveError("order=interleave with blocks of different shapes changes the depth only; use order=tile")

    @cached_property
    def outer(self) -> Shape:
        """The whole blocks and heads that hold the target."""
        return self.spec.enclosing(self.target)

    def grows(self, axis: Axis) -> bool:
        """Whether there are copies along an axis."""
        return self.outer.length(axis) > self.source.length(axis)

    def index(self, axis: Axis, stride: int) -> list[int]:
        """Source index of every index of the enclosing shape along an axis, counted in blocks of ``stride`` entries."""
        if axis == "qkv":
            part = self.index("attn", stride)
            length = self.source.length("attn") // stride
            return [third * length + i for third in range(3) for i in part]
        source, target = self.source.length(axis), self.outer.length(axis)
        if source == target:
            return list(range(target // stride))
        unit = stride if self.spec.order == "interleave" else self.spec.unit(axis)
        group = unit // stride
        units = block_map(source // unit, target // unit, self.options.width)
        return [units[i // group] * group + i % group for i in range(target // stride)]

    def channels(self, axis: Axis) -> list[int]:
        """Source channel of every target channel of an axis; interleaved blocks are strided sets of channels."""
        if self.spec.order == "tile" or axis == "head":
            index = self.index(axis, 1)
            if self.outer != self.target:
                index = [index[i] for i in self.target.crop(torch.arange(len(index)), 0, axis, self.outer)]
            return index
        side = self.spec.blocks["fc1"][0]
        blocks = self.index(axis, side)
        source = self.source.length(axis) // side
        return [r * source + k for r in range(side) for k in blocks]

    def shares(self, index: Sequence[int], axis: Axis) -> Tensor:
        """What each copy on the reading side reads of what is copied: equal shares. A block of which the crop leaves
        fewer channels than of another copy reads nothing, so that the others need not differ by channel."""
        entries, stride = torch.tensor(index), self.outer.length(axis) // len(index)
        whole = torch.ones(len(index), dtype=torch.float64)
        if self.outer != self.target and len(index) != self.target.length(axis):  # blocks of scalers
            left = self.target.crop(torch.arange(len(index) * stride), 0, axis, self.outer) // stride
            channels = left.bincount(minlength=len(index))
            most = torch.zeros(int(entries.max()) + 1, dtype=channels.dtype)
            most = most.scatter_reduce(0, entries, channels, "amax")
            whole = (channels == most[entries]).double()
        return whole / entries.bincount(whole)[entries]

    def reading(self, index: Sequence[int], axis: Axis) -> Tensor:
        """Factor on each entry of the reading side, given the source index of each."""
        scale = self.options.width_scale
        if scale == "auto":
            scale = "copies" if self.grows(axis) else "sqrt"
        if scale == "copies":
            return self.shares(index, axis)
        over: Axis = axis if self.grows(axis) else "embed"  # fewer heads' channels or hidden units alone change no norm
        factor = math.sqrt(self.source.length(over) / self.target.length(over)) if scale == "sqrt" else 1.0
        return torch.full((len(index),), factor, dtype=torch.float64)

    def read(self, tensor: Tensor, dim: int, index: Sequence[int], axis: Axis, generator: torch.Generator) -> Tensor:
        """Select along the reading side and scale; copies made by growing are split unequally if asked to."""
        picked = tensor.index_select(dim, torch.tensor(index, device=tensor.device))
        factor = self.reading(index, axis).to(torch.get_default_dtype())
        if self.options.symmetry == "split" and self.grows(axis):
            alone = range(len(index), 2 * len(index))  # a copy that reads nothing takes nothing from the others
            groups = [i if reads else k for i, k, reads in zip(index, alone, factor > 0, strict=True)]
            factor = factor * split_factors(groups, picked.shape[dim - 1], self.options.strength, generator)
        return picked * factor.to(tensor.device)


def split_factors(index: Sequence[int], rows: int, strength: float, generator: torch.Generator) -> Tensor:
    """(rows, len(index)) factors of mean one over the copies of each source index, different in every row.

    They must differ by row: factors shared by all rows would give copies parallel gradients, which Adam's
    normalisation makes equal again.
    """
    groups = torch.tensor(index)
    raw = 1 + strength * (2 * torch.rand(rows, len(index), generator=generator) - 1)
    total = torch.zeros(rows, int(groups.max()) + 1).index_add_(1, groups, raw)
    count = torch.bincount(groups, minlength=int(groups.max()) + 1)
    return raw * (count / total)[:, groups]
