"""DCT resizing (FRONT): low frequencies of the weights are kept, missing high ones are zero."""

import math

import torch
from torch import Tensor, nn

from ..family import Family
from ..spec import TargetSpec
from ..vit import axes
from .base import Baseline, Batches, complete, dense, shape_rules, stack_layers, unstack_layers
from .spectral import resize_state


def dct_matrix(n: int) -> Tensor:
    """The orthonormal DCT-II of length n, (n, n) float64: row k is ``sqrt(2 / n) cos(pi k (2i + 1) / 2n)``."""
    k, i = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)[None]
    matrix = math.sqrt(2 / n) * torch.cos(math.pi * k * (2 * i + 1) / (2 * n))
    matrix[0] /= math.sqrt(2)
    return matrix


def keep_low(tensor: Tensor, dim: int, length: int) -> Tensor:
    """One axis at another length: orthonormal DCT, coefficients cut or padded with zeros, inverse DCT.

    What both lengths can hold keeps its energy; a constant c becomes ``c sqrt(n / length)``.
    """
    n = tensor.shape[dim]
    if n == length:
        return tensor
    low = min(n, length)
    map_ = dct_matrix(length)[:low].T @ dct_matrix(n)[:low]
    return (tensor.movedim(dim, -1) @ map_.T.to(tensor)).movedim(-1, dim)


def keep_values(tensor: Tensor, dim: int, length: int) -> Tensor:
    """:func:`keep_low` with constants kept."""
    return keep_low(tensor, dim, length) * math.sqrt(length / tensor.shape[dim])


def keep_sums(tensor: Tensor, dim: int, length: int) -> Tensor:
    """:func:`keep_low` with sums kept: an unnormalised transform there and back at another length, as released."""
    return keep_low(tensor, dim, length) * math.sqrt(tensor.shape[dim] / length)


def released_state(state: dict[str, Tensor], family: Family, target: TargetSpec) -> dict[str, Tensor]:
    """The released FRONT on every tensor: standardise, resize each axis and the layers by :func:`keep_sums`, undo.

    Each tensor of each layer is standardised by its own mean and standard deviation; layer j takes those of the
    ancestor's layer j, or of its last. Axes are resized by length alone: qkv is one axis, and the patch embedding's
    channels in and out are one.
    """
    spec = shape_rules(family)

    def lengths(name: str, tensor: Tensor) -> list[int]:
        return [
            size if axis is None else spec.shape(target).length(axis)
            for size, axis in zip(tensor.shape, axes(name, spec), strict=True)
        ]

    def resize(name: str, stack: Tensor, depth: int) -> Tensor:
        shape = lengths(name, stack[0])
        flat = stack.flatten(1, 2) if stack.ndim == 5 else stack
        own = [shape[0] * shape[1], *shape[2:]] if stack.ndim == 5 else shape
        rows = flat.flatten(1)
        mean, std = rows.mean(1), rows.std(1) if rows.shape[1] > 1 else torch.zeros(len(rows))
        ones = [-1] + [1] * (flat.ndim - 1)
        result = keep_sums((flat - mean.view(ones)) / (std.view(ones) + 1e-8), 0, depth)
        for dim, length in enumerate(own, 1):
            result = keep_sums(result, dim, length)
        layer = torch.arange(depth).clamp(max=len(stack) - 1)
        return (result * std[layer].view(ones) + mean[layer].view(ones)).reshape(depth, *shape)

    stacks, rest = stack_layers(state, family.size.depth)
    return unstack_layers(
        {name: resize(f"blocks.0.{name}", s, target.depth) for name, s in stacks.items()},
        {name: resize(name, tensor[None], 1)[0] for name, tensor in rest.items()},
    )


def initialise(
    ancestor: nn.Module, family: Family, target: TargetSpec, seed: int, batches: Batches | None = None
) -> dict[str, Tensor]:
    """The 3-D DCT over layers, rows and columns, cut or padded with zeros, inverted at the target's size.

    Shen et al., FRONT, arXiv 2603.07523, with the defaults of the released script (``keep_ratio`` 1, ``zero`` padding,
    no area ratio): :func:`released_state`. The classifier is resized along what it reads and inherited when the classes
    are equal. Where we differ: when the depth grows the release gives all new layers one and the same tensor (they
    share a list that each overwrites); here each has its own, as its equation says. Images and patches of another size
    are resized by timm's functions.
    """
    full = family.resolve(target)
    return complete(released_state(dense(ancestor), family, full), family, full, seed)


def initialise_scaled(
    ancestor: nn.Module, family: Family, target: TargetSpec, seed: int, batches: Batches | None = None
) -> dict[str, Tensor]:
    """The same transform with scales that suit a network (ours): :func:`wave.baselines.spectral.resize_state`.

    Values are kept along layers, vectors and embeddings, and the reading side of a matrix is divided by its growth: for
    the four matrices this is the orthonormal DCT itself. Nothing is standardised; q, k and v are separate signals.
    """
    full = family.resolve(target)
    return complete(resize_state(dense(ancestor), family, full, keep_values), family, full, seed)


BASELINE = Baseline("dct", initialise)
SCALED = Baseline("dct_scaled", initialise_scaled)
