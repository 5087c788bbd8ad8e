"""Resizing all weights of a model as sampled signals, along the layers and every axis of width."""

from collections.abc import Callable, Mapping

from torch import Tensor

from ..family import Family
from ..spec import TargetSpec
from ..vit import axes_of
from .base import shape_rules, stack_layers, unstack_layers

Resize = Callable[[Tensor, int, int], Tensor]
"""``resize(tensor, dim, length)``: that axis at another length; a constant stays the same."""


def resize_width(
    name: str, tensor: Tensor, family: Family, target: TargetSpec, resize: Resize, lead: int = 0
) -> Tensor:
    """Resize one tensor to the target's width (ours).

    q, k and v are three signals. What a matrix reads is also divided by the growth of that axis, so
    that the sum over a smooth residual stream stays the same.

    Args:
        name: timm's name of the tensor.
        tensor: A tensor of the family's own size.
        family: The ancestor's family.
        target: The size to build.
        resize: How one axis is resized.
        lead: Number of leading axes that are not the tensor's own.
    """
    rules = shape_rules(family)
    source_shape, target_shape = rules.shape(family.size), rules.shape(target)
    own = axes_of(name)
    for i, axis in enumerate(own):
        if axis is None:
            continue
        dim = lead + i
        parts = 3 if axis == "qkv" else 1
        old = source_shape.length(axis) // parts
        new = target_shape.length(axis) // parts
        before, after = tensor.shape[:dim], tensor.shape[dim + 1 :]
        signals = tensor.reshape(*before, parts, old, *after)
        tensor = resize(signals, dim + 1, new).reshape(*before, parts * new, *after)
        reading_side = i == 1 and len(own) == 2
        if reading_side:
            tensor = tensor * (old / new)
    return tensor


def resize_state(
    state: Mapping[str, Tensor], family: Family, target: TargetSpec, resize: Resize
) -> dict[str, Tensor]:
    """Resize a dense state to the target's width and depth.

    Layers, rows and columns of each kind of matrix are one three-dimensional signal.
    """
    stacks, rest = stack_layers(state, family.size.depth)
    for name, stack in stacks.items():
        deep = resize(stack, 0, target.depth)
        full_name = f"blocks.0.{name}"
        stacks[name] = resize_width(
            full_name, deep, family=family, target=target, resize=resize, lead=1
        )
    for name, tensor in rest.items():
        rest[name] = resize_width(name, tensor, family=family, target=target, resize=resize)
    return unstack_layers(stacks, rest)
