"""Resizing all weights of a model as if they were sampled signals: along the layers, and along every axis of the width."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..spec import TargetSpec
from ..vit import Family, axes
from .base import shape_rules

Resize = Callable[[Tensor, int, int], Tensor]
"""``resize(tensor, dim, length)``: that axis at another length; a constant stays the same constant."""


def stack_layers(state: Mapping[str, Tensor], depth: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of the blocks stacked over layers (L, ...), by name inside a block; and all other tensors."""
    names = [name.removeprefix("blocks.0.") for name in state if name.startswith("blocks.0.")]
    stacks = {name: torch.stack([state[f"blocks.{i}.{name}"] for i in range(depth)]) for name in names}
    return stacks, {name: tensor for name, tensor in state.items() if not name.startswith("blocks.")}


def unstack_layers(stacks: Mapping[str, Tensor], rest: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`stack_layers`."""
    return dict(rest) | {f"blocks.{i}.{name}": layer for name, s in stacks.items() for i, layer in enumerate(s)}


def resize_width(
    name: str, tensor: Tensor, family: Family, target: TargetSpec, resize: Resize, lead: int = 0
) -> Tensor:
    """One tensor at the target's width; the first ``lead`` axes are not the tensor's own.

    q, k and v are three signals. What a matrix reads is also divided by the growth of that axis, so that the sum over
    a smooth residual stream stays the same.
    """
    spec = shape_rules(family)
    own = axes(name, spec)
    for i, axis in enumerate(own):
        if axis is None:
            continue
        dim, parts = lead + i, 3 if axis == "qkv" else 1
        old, new = (spec.length(axis, width) // parts for width in (family.size.embed_dim, target.embed_dim))
        tensor = resize(tensor.unflatten(dim, (parts, old)), dim + 1, new).flatten(dim, dim + 1)
        if i == 1 and len(own) == 2:
            tensor = tensor * (old / new)
    return tensor


def resize_state(state: Mapping[str, Tensor], family: Family, target: TargetSpec, resize: Resize) -> dict[str, Tensor]:
    """A dense state at the target's width and depth: layers, rows and columns of each kind are one 3-D signal."""
    stacks, rest = stack_layers(state, family.size.depth)
    resized = {
        name: resize_width(f"blocks.0.{name}", resize(s, 0, target.depth), family, target, resize, lead=1)
        for name, s in stacks.items()
    }
    return unstack_layers(resized, {n: resize_width(n, t, family, target, resize) for n, t in rest.items()})
