"""WidthMap: what each channel, head, hidden unit and block of another width is read off (ours).

One map of blocks on every axis, the same in all layers, keeps the residual stream consistent: a
channel means the same wherever it is written and read. For lengths that are not whole blocks and
heads, the map is that of the enclosing shape, and the result is cropped.
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
from .template_spec import TemplateSpec

Width = Literal["leading", "even"]
WidthScale = Literal["auto", "sqrt", "copies", "none"]
Symmetry = Literal["none", "split", "noise"]
GROWING: tuple[Axis, ...] = ("embed", "attn", "hidden")
"""The axes along which sizes differ; ``qkv`` follows ``attn``."""
_TITLES = ("embed_dim", "heads' width", "mlp hidden width")


def block_map(source: int, target: int, width: Width = "leading") -> list[int]:
    """Return the source block of each target block.

    Args:
        source: Number of blocks of the source.
        target: Number of blocks of the target.
        width: ``leading`` takes the first blocks, and starts again from the first when growing;
            ``even`` selects evenly spaced blocks, and copies each into neighbouring places.

    >>> block_map(4, 6), block_map(4, 6, "even")
    ([0, 1, 2, 3, 0, 1], [0, 0, 1, 2, 2, 3])
    """
    if width == "leading":
        return [i % source for i in range(target)]
    return [i * source // target for i in range(target)]


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
    """The width map between two shapes: source indices of channels and scalers along each axis.

    Args:
        spec: The templates.
        source: The shape that is read; of whole blocks and template heads.
        target: The shape that is built.
        options: Which blocks are read, and how they are scaled.

    Raises:
        WaveError: The templates cannot build one of the shapes, or cannot map between them.
    """

    spec: TemplateSpec
    source: Shape
    target: Shape
    options: WidthOptions

    def __post_init__(self) -> None:
        self.spec.check(self.source, whole=True)
        self.spec.check(self.target)
        for axis, title in zip(GROWING, _TITLES, strict=True):
            self._check_whole_units(axis, title)
        if self.spec.order == "interleave" and len(set(self.spec.blocks.values())) > 1:
            raise WaveError(
                "order=interleave with blocks of different shapes changes the depth only; "
                "use order=tile"
            )

    def _check_whole_units(self, axis: Axis, title: str) -> None:
        """Blocks can fit although units, which hold blocks of all kinds, do not."""
        source, outer = self.source.length(axis), self.outer.length(axis)
        unit = self.spec.unit(axis)
        for length in (source, outer):
            if source != outer and length % unit:
                raise WaveError(
                    f"{title} {length} is not a multiple of {unit}, the unit of these templates' "
                    f"width map; they can change the depth only: use embed_dim={self.source.embed}"
                )

    @cached_property
    def outer(self) -> Shape:
        """The whole blocks and heads that hold the target."""
        return self.spec.enclosing(self.target)

    def grows(self, axis: Axis) -> bool:
        """Return whether the target has copies along an axis."""
        return self.outer.length(axis) > self.source.length(axis)

    def index(self, axis: Axis, stride: int) -> list[int]:
        """Return the source index of every index of the enclosing shape along an axis.

        Args:
            axis: The axis.
            stride: What is counted: entries (1), or blocks of ``stride`` entries.
        """
        if axis == "qkv":
            part = self.index("attn", stride)
            length = self.source.length("attn") // stride
            return [third * length + i for third in range(3) for i in part]
        source, target = self.source.length(axis), self.outer.length(axis)
        if source == target:
            return list(range(target // stride))
        # Interleaved blocks are strided sets of channels, which cut through every head anyway:
        # there the map moves single blocks, otherwise whole units.
        unit = stride if self.spec.order == "interleave" else self.spec.unit(axis)
        group = unit // stride
        units = block_map(source // unit, target // unit, width=self.options.width)
        return [units[i // group] * group + i % group for i in range(target // stride)]

    def channels(self, axis: Axis) -> list[int]:
        """Return the source channel of every target channel of an axis."""
        if self.spec.order == "tile" or axis == "head":
            index = self.index(axis, 1)
            if self.outer == self.target:
                return index
            kept = self.target.crop(torch.arange(len(index)), 0, axis=axis, outer=self.outer)
            return [index[i] for i in kept]
        # Channel r * (number of blocks) + k is row r of the interleaved block k.
        side = self.spec.blocks["fc1"][0]
        blocks = self.index(axis, side)
        count = self.source.length(axis) // side
        return [row * count + block for row in range(side) for block in blocks]

    def shares(self, index: Sequence[int], axis: Axis) -> Tensor:
        """Return the part that each copy on the reading side reads of what is copied.

        Copies share equally, which keeps the sum over them. A block of which the crop leaves fewer
        channels than of another copy reads nothing, so that the others need not differ by channel.

        Args:
            index: Source index of each entry.
            axis: What the entries lie along.

        Returns:
            One factor per entry, float64.
        """
        entries = torch.tensor(index)
        whole = torch.ones(len(index), dtype=torch.float64)
        counts_blocks = len(index) != self.target.length(axis)
        if self.outer != self.target and counts_blocks:
            stride = self.outer.length(axis) // len(index)
            positions = torch.arange(len(index) * stride)
            kept = self.target.crop(positions, 0, axis=axis, outer=self.outer) // stride
            channels = kept.bincount(minlength=len(index))
            # By source index, of which there can be more than entries.
            most = torch.zeros(int(entries.max()) + 1, dtype=channels.dtype)
            most = most.scatter_reduce(0, entries, channels, reduce="amax")
            whole = (channels == most[entries]).double()
        return whole / entries.bincount(whole)[entries]

    def reading(self, index: Sequence[int], axis: Axis) -> Tensor:
        """Return the factor on each entry of the reading side, float64.

        Args:
            index: Source index of each entry.
            axis: What the entries lie along.
        """
        scale = self.options.width_scale
        if scale == "auto":
            scale = "copies" if self.grows(axis) else "sqrt"
        if scale == "copies":
            return self.shares(index, axis)
        factor = 1.0
        if scale == "sqrt":
            # A norm rescales by the whole stream: fewer heads or hidden units change no norm.
            over: Axis = axis if self.grows(axis) else "embed"
            factor = math.sqrt(self.source.length(over) / self.target.length(over))
        return torch.full((len(index),), factor, dtype=torch.float64)

    def read(
        self, tensor: Tensor, dim: int, index: Sequence[int], axis: Axis, generator: torch.Generator
    ) -> Tensor:
        """Select along the reading side of a matrix, and scale.

        Args:
            tensor: The matrix, or scalers.
            dim: Its reading side.
            index: Source index of each entry along ``dim``.
            axis: What the entries lie along.
            generator: For ``symmetry="split"``, which splits copies unequally.
        """
        picked = tensor.index_select(dim, torch.tensor(index, device=tensor.device))
        factor = self.reading(index, axis).to(torch.get_default_dtype())
        if self.options.symmetry == "split" and self.grows(axis):
            # A copy that reads nothing is a group of its own, so as to take nothing from others.
            alone = range(len(index), 2 * len(index))
            reads = factor > 0
            groups = [i if r else a for i, a, r in zip(index, alone, reads, strict=True)]
            rows = picked.shape[dim - 1]
            strength = self.options.strength
            factor = factor * split_factors(groups, rows, strength=strength, generator=generator)
        return picked * factor.to(tensor.device)


def split_factors(
    index: Sequence[int], rows: int, strength: float, generator: torch.Generator
) -> Tensor:
    """Draw factors whose mean over the copies of each source index is one, different in every row.

    Args:
        index: Source index of each entry.
        rows: Number of rows.
        strength: How far factors are from one before they are normalised, 0 to 1.
        generator: Where they are drawn from.

    Returns:
        (rows, len(index)).
    """
    # Factors shared by all rows would give the copies parallel gradients, which Adam's
    # normalisation makes equal again: the copies would never come apart.
    groups = torch.tensor(index)
    num_groups = int(groups.max()) + 1
    raw = 1 + strength * (2 * torch.rand(rows, len(index), generator=generator) - 1)
    total = torch.zeros(rows, num_groups).index_add_(1, groups, raw)
    count = torch.bincount(groups, minlength=num_groups)
    return raw * (count / total)[:, groups]
