"""Wavelet resizing (BoT): shrinking keeps the low band of the weights, growing adds empty high bands."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..family import Family
from ..spec import TargetSpec
from .base import Baseline, Batches, complete, dense
from .spectral import resize_state


def haar(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Low and high band of the last axis: ``(a + b) / sqrt(2)`` and ``(a - b) / sqrt(2)``, (..., n) to (..., n / 2)."""
    even, odd = tensor[..., ::2], tensor[..., 1::2]
    return (even + odd) / math.sqrt(2), (even - odd) / math.sqrt(2)


def inverse_haar(low: Tensor, high: Tensor) -> Tensor:
    """The inverse of :func:`haar`: two (..., n / 2) bands to (..., n)."""
    return torch.stack([low + high, low - high], dim=-1).flatten(-2) / math.sqrt(2)


def num_levels(source: int, target: int) -> int:
    """Levels of the transform, to the nearest power of two between the lengths: > 0 to grow, < 0 to shrink."""
    return round(math.log2(target / source))


def resize(tensor: Tensor, dim: int, length: int) -> Tensor:
    """One axis at another length, constants kept: :func:`num_levels` of Haar, then linear interpolation to the length.

    An odd length repeats its last entry before a level.
    """
    n = tensor.shape[dim]
    if n == length:
        return tensor
    x = tensor.movedim(dim, -1)
    levels = num_levels(n, length)
    for _ in range(-levels):
        x = haar(torch.cat([x, x[..., -1:]], -1) if x.shape[-1] % 2 else x)[0] / math.sqrt(2)
    for _ in range(levels):
        x = inverse_haar(x, torch.zeros_like(x)) * math.sqrt(2)
    if x.shape[-1] != length:
        flat = x.reshape(-1, 1, x.shape[-1])
        x = F.interpolate(flat, size=length, mode="linear").reshape(*x.shape[:-1], length)
    return x.movedim(-1, dim)


def initialise(
    ancestor: nn.Module, family: Family, target: TargetSpec, seed: int, batches: Batches | None = None
) -> dict[str, Tensor]:
    """The 3-D wavelet transform over layers, rows and columns: its low band, or its inverse with zero high bands.

    Shen et al., BoT, arXiv 2603.07506. We found no code, so these are ours: the Haar wavelet; on each axis as many
    levels as reach the nearest power of two, linear interpolation for what is left (128 to 96); q, k and v as separate
    signals; the scales of :func:`wave.baselines.spectral.resize_state`, which for the four matrices and factors of
    two are the orthonormal transform itself. The classifier is resized along what it reads and inherited when the
    classes are equal.
    """
    full = family.resolve(target)
    return complete(resize_state(dense(ancestor), family, full, resize), family, full, seed)


BASELINE = Baseline("wavelet", initialise)
