"""Shape: the lengths of the axes of one model, and how tensors are cropped to them (ours)."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from .errors import WaveError

Axis = Literal["embed", "attn", "qkv", "head", "hidden"]
"""The residual stream; all heads together; q, k and v of all heads; one head; hidden units."""


@dataclass(frozen=True)
class Shape:
    """The lengths of the axes of one model, in channels but for ``heads``.

    Args:
        embed: The residual stream.
        heads: Attention heads.
        head_dim: One head.
        hidden: The MLP's hidden units.

    >>> Shape(embed=96, heads=6, head_dim=16, hidden=384).length("qkv")
    288
    """

    embed: int
    heads: int
    head_dim: int
    hidden: int

    def length(self, axis: Axis) -> int:
        """Return the number of entries along an axis."""
        attn = self.heads * self.head_dim
        lengths: dict[Axis, int] = {
            "embed": self.embed,
            "attn": attn,
            "qkv": 3 * attn,
            "head": self.head_dim,
            "hidden": self.hidden,
        }
        return lengths[axis]

    def crop(self, tensor: Tensor, dim: int, axis: Axis, outer: "Shape") -> Tensor:
        """Keep the leading entries along one axis of a tensor.

        Args:
            tensor: Along ``dim`` it has the length of ``axis`` in ``outer``.
            dim: The dimension to crop.
            axis: What that dimension is.
            outer: The enclosing shape (:meth:`wave.spec.TemplateSpec.enclosing`).

        Returns:
            The tensor with the length of ``axis`` in this shape along ``dim``.
        """
        if axis not in ("attn", "qkv"):
            return tensor.narrow(dim, 0, self.length(axis))
        # The leading channels of the leading heads, not the leading channels of the axis: a head
        # of the target is a part of one template head. The same for q, k and v.
        parts = 3 if axis == "qkv" else 1
        before, after = tensor.shape[:dim], tensor.shape[dim + 1 :]
        cut = tensor.reshape(*before, parts, outer.heads, outer.head_dim, *after)
        cut = cut.narrow(dim + 1, 0, self.heads).narrow(dim + 2, 0, self.head_dim)
        return cut.flatten(dim, dim + 2)


def heads_of(embed_dim: int, num_heads: int | None, head_dim: int) -> int:
    """Return the number of attention heads of a model.

    Args:
        embed_dim: The model's width.
        num_heads: The number asked for; None for as many heads as ``head_dim`` gives.
        head_dim: Channels of one head.

    Raises:
        WaveError: The width is not a whole number of heads.

    >>> heads_of(96, None, head_dim=16)
    6
    """
    if num_heads is None:
        if embed_dim % head_dim:
            raise WaveError(_no_whole_heads(embed_dim, head_dim))
        return embed_dim // head_dim
    if embed_dim % num_heads:
        raise WaveError(_not_divided(embed_dim, num_heads, head_dim=head_dim))
    return num_heads


def least_heads(embed_dim: int, head_dim: int) -> int:
    """Return the fewest equal heads of at most ``head_dim`` channels that make up a width."""
    return _possible_heads(embed_dim, head_dim)[0]


def _possible_heads(embed_dim: int, head_dim: int) -> list[int]:
    """All numbers of heads that divide a width into heads of at most ``head_dim`` channels."""
    fewest = -(-embed_dim // head_dim)
    return [heads for heads in range(fewest, embed_dim + 1) if embed_dim % heads == 0]


def _not_divided(embed_dim: int, num_heads: int, head_dim: int) -> str:
    possible = _possible_heads(embed_dim, head_dim)
    below = [heads for heads in possible if heads < num_heads][-1:]
    above = [heads for heads in possible if heads > num_heads][:1]
    nearest = " and ".join(str(heads) for heads in [*below, *above])
    return f"num_heads={num_heads} does not divide embed_dim={embed_dim}; nearest: {nearest}"


def _no_whole_heads(embed_dim: int, head_dim: int) -> str:
    below = max(embed_dim // head_dim, 1) * head_dim
    heads = least_heads(embed_dim, head_dim)
    return (
        f"embed_dim={embed_dim} is not a multiple of head_dim={head_dim}; nearest valid widths are "
        f"{below} and {below + head_dim}, or give num_heads, as in num_heads={heads} of "
        f"{embed_dim // heads} channels each"
    )
