"""Mimetic initialisation: attention that starts close to the identity, as in trained models."""

import math

import torch
from torch import Tensor, nn

from ..family import Family
from ..spec import TargetSpec
from ..train import Batches
from .base import Baseline, any_size, fresh_state, shape_rules

QUERY_KEY = (0.7, 0.7)
VALUE_PROJ = (0.4, 0.4)
"""(alpha, beta) of each product, the paper's values."""


def split(target: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the best ``left @ right.T`` of a rank for a matrix (D, D), split evenly by SVD.

    Returns:
        ``U sqrt(S)`` and ``V sqrt(S)``, each (D, rank).
    """
    u, s, v = torch.svd(target)
    root = s[:rank].sqrt()
    return u[:, :rank] * root, v[:, :rank] * root


def noisy_identity(width: int, alpha: float, beta: float, generator: torch.Generator) -> Tensor:
    """Return ``alpha Z + beta I`` (D, D) with independent ``Z[i, j] ~ N(0, 1 / D)``."""
    noise = torch.randn(width, width, generator=generator)
    return alpha * noise / math.sqrt(width) + beta * torch.eye(width)


def initialise(
    ancestor: nn.Module,
    family: Family,
    target: TargetSpec,
    seed: int,
    batches: Batches | None = None,
) -> dict[str, Tensor]:
    """Draw attention that is close to the identity.

    ``W_q W_k^T ~ 0.7 Z + 0.7 I`` and ``W_v W_proj ~ 0.4 Z - 0.4 I`` in the convention ``x W``
    (Trockman and Kolter, ICML 2023). The first product is drawn for every head by itself and cut to
    rank head_dim, the second for all heads together at full rank. Biases are zero. Nothing comes
    from the ancestor. Everything else starts as in timm, also the position embedding, so that
    methods drawn at random differ in their rule for weights alone (ours).
    """
    full = family.resolve(target)
    width, shape = full.embed_dim, shape_rules(family).shape(full)
    state = fresh_state(family, full, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for i in range(full.depth):
        queries: list[Tensor] = []
        keys: list[Tensor] = []
        alpha, beta = QUERY_KEY
        for _ in range(shape.heads):
            product = noisy_identity(width, alpha, beta=beta, generator=generator)
            query, key = split(product, shape.head_dim)
            queries.append(query)
            keys.append(key)
        alpha, beta = VALUE_PROJ
        product = noisy_identity(width, alpha, beta=-beta, generator=generator)
        values, projection = split(product, width)
        attention = f"blocks.{i}.attn"
        # timm's layers hold transposes. proj needs none: ``values @ projection.T`` is the product.
        rows = torch.cat([*queries, *keys, values], 1).T
        state[f"{attention}.qkv.weight"] = rows.contiguous()
        state[f"{attention}.proj.weight"] = projection
        for name in (f"{attention}.qkv.bias", f"{attention}.proj.bias"):
            if name in state:
                state[name] = torch.zeros_like(state[name])
    return state


BASELINE = Baseline("mimetic", initialise, reach=any_size)
