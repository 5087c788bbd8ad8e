"""Wavelet resizing (BoT): shrinking keeps the low band, growing adds empty high bands."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..family import Family
from ..spec import TargetSpec
from ..train import Batches
from .base import Baseline, complete_state, dense_state
from .spectral import resize_state


def haar(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Return low and high band of the last axis, (..., n) to twice (..., n / 2).

    ``(a + b) / sqrt(2)`` and ``(a - b) / sqrt(2)`` of neighbours a and b.
    """
    even, odd = tensor[..., ::2], tensor[..., 1::2]
    return (even + odd) / math.sqrt(2), (even - odd) / math.sqrt(2)


def inverse_haar(low: Tensor, high: Tensor) -> Tensor:
    """Return what :func:`haar` takes apart: two bands (..., n / 2) to (..., n)."""
    return torch.stack([low + high, low - high], dim=-1).flatten(-2) / math.sqrt(2)


def num_levels(source: int, target: int) -> int:
    """Return the levels of the transform: above 0 to grow, below 0 to shrink.

    As many as reach the power of two nearest to the ratio of the lengths.
    """
    return round(math.log2(target / source))


def resize(tensor: Tensor, dim: int, length: int) -> Tensor:
    """Resize one axis, constants kept: :func:`num_levels` of Haar, then linear interpolation.

    An odd length repeats its last entry before a level.
    """
    n = tensor.shape[dim]
    if n == length:
        return tensor
    x = tensor.movedim(dim, -1)
    levels = num_levels(n, length)
    # A level multiplies a constant by sqrt(2); each is undone at once.
    for _ in range(-levels):
        even = torch.cat([x, x[..., -1:]], -1) if x.shape[-1] % 2 else x
        low, _ = haar(even)
        x = low / math.sqrt(2)
    for _ in range(levels):
        x = inverse_haar(x, torch.zeros_like(x)) * math.sqrt(2)
    if x.shape[-1] != length:
        flat = x.reshape(-1, 1, x.shape[-1])
        x = F.interpolate(flat, size=length, mode="linear").reshape(*x.shape[:-1], length)
    return x.movedim(-1, dim)


def initialise(
    ancestor: nn.Module,
    family: Family,
    target: TargetSpec,
    seed: int,
    batches: Batches | None = None,
) -> dict[str, Tensor]:
    """Keep the low band of the 3-D wavelet transform, or grow it with zero high bands.

    Shen et al., BoT, arXiv 2603.07506, over layers, rows and columns. We found no code, so these
    are ours: the Haar wavelet; on each axis as many levels as reach the nearest power of two, and
    linear interpolation for what is left (128 to 96); q, k and v as separate signals; the scales of
    :func:`wave.baselines.spectral.resize_state`, which for the four matrices and factors of two are
    the orthonormal transform itself. The classifier is resized along what it reads, and inherited
    when the classes are equal.
    """
    full = family.resolve(target)
    state = resize_state(dense_state(ancestor), family, target=full, resize=resize)
    return complete_state(state, family, target=full, seed=seed)


BASELINE = Baseline("wavelet", initialise)
