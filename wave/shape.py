"""Shape: the lengths of the axes of one model, and how a tensor of whole blocks and heads is cropped to them (ours)."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from .errors import WaveError

Axis = Literal["embed", "attn", "qkv", "head", "hidden"]
"""The residual stream, all heads together, q, k and v of all heads, one head, the MLP's hidden units."""


@dataclass(frozen=True)
class Shape:
    """Channels of the residual stream, attention heads, channels a head, and hidden channels of the MLP."""

    embed: int
    heads: int
    head_dim: int
    hidden: int

    def length(self, axis: Axis) -> int:
        """Entries of an axis."""
        attn = self.heads * self.head_dim
        lengths = {"embed": self.embed, "attn": attn, "qkv": 3 * attn, "head": self.head_dim, "hidden": self.hidden}
        return lengths[axis]

    def crop(self, tensor: Tensor, dim: int, axis: Axis, outer: "Shape") -> Tensor:
        """The leading entries of one axis that has the length it has in ``outer``; of heads the leading channels of the
        leading heads, for q, k and v alike."""
        if axis not in ("attn", "qkv"):
            return tensor.narrow(dim, 0, self.length(axis))
        parts = 3 if axis == "qkv" else 1
        cut = tensor.reshape(*tensor.shape[:dim], parts, outer.heads, outer.head_dim, *tensor.shape[dim + 1 :])
        cut = cut.narrow(dim + 1, 0, self.heads).narrow(dim + 2, 0, self.head_dim)
        return cut.flatten(dim, dim + 2)


def heads_of(embed_dim: int, num_heads: int | None, head_dim: int) -> int:
    """Attention heads at a width: as given, else of ``head_dim`` channels each; raises :class:`WaveError` for a width
    that is no multiple."""
    if num_heads is not None:
        if embed_dim % num_heads:
            can = [h for h in range(least_heads(embed_dim, head_dim), embed_dim + 1) if embed_dim % h == 0]
            near = " and ".join(
                map(str, [*[h for h in can if h < num_heads][-1:], *[h for h in can if h > num_heads][:1]])
            )
            raise WaveError(f"num_heads={num_heads} does not divide embed_dim={embed_dim}; nearest: {near}")
        return num_heads
    if embed_dim % head_dim:
        low, least = max(embed_dim // head_dim, 1) * head_dim, least_heads(embed_dim, head_dim)
        raise WaveError(
            f"embed_dim={embed_dim} is not a multiple of head_dim={head_dim}; nearest valid widths are {low} and "
            f"{low + head_dim}, or give num_heads, as in num_heads={least} of {embed_dim // least} channels each"
        )
    return embed_dim // head_dim


def least_heads(embed_dim: int, head_dim: int) -> int:
    """The fewest heads of equally many channels, at most ``head_dim``, that a width can be cut into."""
    return next(h for h in range(-(-embed_dim // head_dim), embed_dim + 1) if embed_dim % h == 0)
