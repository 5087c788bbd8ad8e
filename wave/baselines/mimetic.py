"""Mimetic initialisation: attention that starts close to the identity, as in trained Transformers."""

import math

import torch
from torch import Tensor, nn

from ..family import Family
from ..spec import TargetSpec
from .base import Baseline, Batches, anything, fresh, shape_rules

QUERY_KEY = (0.7, 0.7)
VALUE_PROJ = (0.4, 0.4)
"""(alpha, beta) of each product."""


def split(target: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """``A`` (D, D) as ``left @ right.T``, best of that rank: U sqrt(S) and V sqrt(S), each (D, rank)."""
    u, s, v = torch.svd(target)
    root = s[:rank].sqrt()
    return u[:, :rank] * root, v[:, :rank] * root


def noisy_identity(width: int, alpha: float, beta: float, generator: torch.Generator) -> Tensor:
    """``alpha Z + beta I`` with independent ``Z[i, j] ~ N(0, 1 / D)``."""
    return alpha * torch.randn(width, width, generator=generator) / math.sqrt(width) + beta * torch.eye(width)


def initialise(
    ancestor: nn.Module, family: Family, target: TargetSpec, seed: int, batches: Batches | None = None
) -> dict[str, Tensor]:
    """Nothing of the ancestor, the classifier included.

    In the row convention ``x W``, and with timm's layers storing the transposes (Trockman and Kolter, ICML 2023):
    ``W_q W_k^T ~ alpha Z + beta I`` for every head by itself, cut to rank head_dim, and ``W_v W_proj ~ alpha Z - beta
    I`` for all heads together, at full rank; an SVD splits each product evenly. Biases zero. Everything else is timm's
    start, the position embedding too, so that methods drawn at random differ in their rule for weights alone (ours).
    """
    full = family.resolve(target)
    width, shape = full.embed_dim, shape_rules(family).shape(full)
    state = fresh(family, full, seed)
    generator = torch.Generator().manual_seed(seed)
    alpha, beta = VALUE_PROJ
    for i in range(full.depth):
        attention = f"blocks.{i}.attn"
        pairs = [split(noisy_identity(width, *QUERY_KEY, generator), shape.head_dim) for _ in range(shape.heads)]
        values, projection = split(noisy_identity(width, alpha, -beta, generator), width)
        queries, keys = torch.cat([q for q, _ in pairs], 1), torch.cat([k for _, k in pairs], 1)
        state[f"{attention}.qkv.weight"] = torch.cat([queries, keys, values], 1).T.contiguous()
        state[f"{attention}.proj.weight"] = projection
        for name in (f"{attention}.qkv.bias", f"{attention}.proj.bias"):
            if name in state:
                state[name] = torch.zeros_like(state[name])
    return state


BASELINE = Baseline("mimetic", initialise, anything)
