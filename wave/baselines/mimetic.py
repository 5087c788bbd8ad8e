"""Mimetic initialisation: attention that starts close to the identity, as in trained Transformers."""

import math

import torch
from torch import Tensor, nn

from ..spec import TargetSpec
from ..vit import Family
from .base import Baseline, Batches, dense, seeded

QUERY_KEY = (0.7, 0.7)
VALUE_PROJ = (0.4, 0.4)
"""(alpha, beta) of each product."""


def split(target: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """``A`` (D, D) as ``left @ right.T``, best of that rank: U sqrt(S) and V sqrt(S), each (D, rank)."""
    u, s, vh = torch.linalg.svd(target)
    root = s[:rank].sqrt()
    return u[:, :rank] * root, vh[:rank].T * root


def noisy_identity(width: int, alpha: float, beta: float) -> Tensor:
    """``alpha Z + beta I`` with independent ``Z[i, j] ~ N(0, 1 / D)``."""
    return alpha * torch.randn(width, width) / math.sqrt(width) + beta * torch.eye(width)


def initialise(
    ancestor: nn.Module, family: Family, target: TargetSpec, seed: int, batches: Batches | None = None
) -> dict[str, Tensor]:
    """Nothing of the ancestor, the classifier included.

    In the row convention ``x W``, and with timm's layers storing the transposes (Trockman and Kolter, ICML 2023):
    ``W_q W_k^T ~ alpha Z + beta I`` for every head by itself, cut to rank head_dim, and ``W_v W_proj ~ alpha Z - beta
    I`` for all heads together, at full rank; an SVD splits each product evenly. Biases zero. Everything else is timm's
    start: the sinusoidal position embeddings that the paper also uses are left out, so that all methods drawn at
    random differ in the rule for their weights alone (ours).
    """
    width = family.resolve(target).embed_dim
    with seeded(seed):
        model = family.create(target)
        for block in model.blocks:
            queries, keys = zip(
                *(split(noisy_identity(width, *QUERY_KEY), family.head_dim) for _ in range(width // family.head_dim)),
                strict=True,
            )
            alpha, beta = VALUE_PROJ
            values, projection = split(noisy_identity(width, alpha, -beta), width)
            block.attn.qkv.weight.data = torch.cat([*(q.T for q in queries), *(k.T for k in keys), values.T])
            block.attn.proj.weight.data = projection
            for layer in (block.attn.qkv, block.attn.proj):
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        return dense(model)


BASELINE = Baseline("mimetic", initialise)
