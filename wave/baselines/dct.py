"""DCT resizing (FRONT): low frequencies of the weights are kept, missing high ones are zero."""

import math

import torch
from torch import Tensor, nn

from ..family import Family
from ..spec import TargetSpec
from ..train import Batches
from ..vit import axes_of
from .base import (
    Baseline,
    complete_state,
    dense_state,
    shape_rules,
    stack_layers,
    unstack_layers,
)
from .spectral import resize_state


def dct_matrix(n: int) -> Tensor:
    """Return the orthonormal DCT-II, (n, n) float64: ``sqrt(2 / n) cos(pi k (2i + 1) / 2n)``.

    k is the row, i the column; row 0 is divided by ``sqrt(2)``.
    """
    k = torch.arange(n, dtype=torch.float64)[:, None]
    i = torch.arange(n, dtype=torch.float64)[None]
    matrix = math.sqrt(2 / n) * torch.cos(math.pi * k * (2 * i + 1) / (2 * n))
    matrix[0] /= math.sqrt(2)
    return matrix


def keep_low(tensor: Tensor, dim: int, length: int) -> Tensor:
    """Resize one axis: orthonormal DCT, coefficients cut or padded with zeros, inverse DCT.

    What both lengths can hold keeps its energy; a constant c becomes ``c sqrt(n / length)``.
    """
    n = tensor.shape[dim]
    if n == length:
        return tensor
    low = min(n, length)
    there_and_back = dct_matrix(length)[:low].T @ dct_matrix(n)[:low]
    return (tensor.movedim(dim, -1) @ there_and_back.T.to(tensor)).movedim(-1, dim)


def keep_values(tensor: Tensor, dim: int, length: int) -> Tensor:
    """Resize one axis as :func:`keep_low`, with constants kept."""
    return keep_low(tensor, dim, length) * math.sqrt(length / tensor.shape[dim])


def keep_sums(tensor: Tensor, dim: int, length: int) -> Tensor:
    """Resize one axis as :func:`keep_low`, with sums kept.

    This is an unnormalised transform there and back at another length, as in the released code.
    """
    return keep_low(tensor, dim, length) * math.sqrt(tensor.shape[dim] / length)


def released_state(
    state: dict[str, Tensor], family: Family, target: TargetSpec
) -> dict[str, Tensor]:
    """Resize every tensor as the released FRONT does: standardise, resize all axes, undo.

    Each tensor of each layer is standardised by its own mean and standard deviation; layer j takes
    those of the ancestor's layer j, or of its last. Axes are resized by length alone: qkv is one
    axis, and the patch embedding's channels in and out are one.
    """
    stacks, rest = stack_layers(state, family.size.depth)
    for name, stack in stacks.items():
        shape = _lengths(f"blocks.0.{name}", stack[0], family=family, target=target)
        stacks[name] = _resize_standardised(stack, target.depth, shape=shape)
    for name, tensor in rest.items():
        shape = _lengths(name, tensor, family=family, target=target)
        rest[name] = _resize_standardised(tensor[None], 1, shape=shape)[0]
    return unstack_layers(stacks, rest)


def _lengths(name: str, tensor: Tensor, family: Family, target: TargetSpec) -> list[int]:
    """The shape of a tensor in the target."""
    shape = shape_rules(family).shape(target)
    sides = zip(tensor.shape, axes_of(name), strict=True)
    return [side if axis is None else shape.length(axis) for side, axis in sides]


def _resize_standardised(stack: Tensor, depth: int, shape: list[int]) -> Tensor:
    r"""A stack (L, ...) of standardised layers as (depth, \*shape), its moments put back."""
    lengths = shape
    if stack.ndim == 5:  # the patch embedding
        stack = stack.flatten(1, 2)
        lengths = [shape[0] * shape[1], *shape[2:]]
    rows = stack.flatten(1)
    mean = rows.mean(1)
    # The standard deviation of a single entry is NaN.
    std = rows.std(1) if rows.shape[1] > 1 else torch.zeros(len(rows))
    by_layer = [-1] + [1] * (stack.ndim - 1)
    result = (stack - mean.view(by_layer)) / (std.view(by_layer) + 1e-8)
    result = keep_sums(result, 0, depth)
    for dim, length in enumerate(lengths, 1):
        result = keep_sums(result, dim, length)
    layer = torch.arange(depth).clamp(max=len(stack) - 1)
    result = result * std[layer].view(by_layer) + mean[layer].view(by_layer)
    return result.reshape(depth, *shape)


def initialise(
    ancestor: nn.Module,
    family: Family,
    target: TargetSpec,
    seed: int,
    batches: Batches | None = None,
) -> dict[str, Tensor]:
    """Keep the low frequencies of the 3-D DCT over layers, rows and columns, as released.

    Shen et al., FRONT, arXiv 2603.07523, with the defaults of the released script (``keep_ratio``
    1, ``zero`` padding, no area ratio): :func:`released_state`. The classifier is resized along
    what it reads, and inherited when the classes are equal. Where we differ: when the depth grows,
    the release gives all new layers one and the same tensor (they share a list that each
    overwrites); here each has its own, as the paper's equation says. Images and patches of another
    size are resized by timm's functions.
    """
    full = family.resolve(target)
    state = released_state(dense_state(ancestor), family, target=full)
    return complete_state(state, family, target=full, seed=seed)


def initialise_scaled(
    ancestor: nn.Module,
    family: Family,
    target: TargetSpec,
    seed: int,
    batches: Batches | None = None,
) -> dict[str, Tensor]:
    """Keep the low frequencies with scales that suit a network (ours).

    Values are kept along layers, vectors and embeddings, and the reading side of a matrix is
    divided by its growth (:func:`wave.baselines.spectral.resize_state`): for the four matrices this
    is the orthonormal DCT itself. Nothing is standardised; q, k and v are separate signals.
    """
    full = family.resolve(target)
    state = resize_state(dense_state(ancestor), family, target=full, resize=keep_values)
    return complete_state(state, family, target=full, seed=seed)


BASELINE = Baseline("dct", initialise)
SCALED = Baseline("dct_scaled", initialise_scaled)
