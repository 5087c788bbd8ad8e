"""Resizing all weights of a model as if they were sampled signals, along the layers and every axis of the width."""

from collections.abc import Callable, Mapping

from torch import Tensor

from ..family import Family
from ..spec import TargetSpec
from ..vit import axes
from .base import shape_rules, stack_layers, unstack_layers

Resize = Callable[[Tensor, int, int], Tensor]
"""``resize(tensor, dim, length)``: that axis at another length; a constant stays the same constant."""


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
        old, new = (spec.shape(size).length(axis) // parts for size in (family.size, target))
        shape = tensor.shape
        cut = tensor.reshape(*shape[:dim], parts, old, *shape[dim + 1 :])
        tensor = resize(cut, dim + 1, new).reshape(*shape[:dim], parts * new, *shape[dim + 1 :])
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
