"""Sums of Kronecker products, and the best templates and scalers for given weights: pure tensor algebra.

A weight ``W`` of shape ``(p*a, q*b)`` is ``sum_t T[t] (x) S[t]`` with templates ``T`` of shape ``(N, a, b)`` and
scalers ``S`` of shape ``(N, p, q)`` (WAVE, arXiv 2406.17503, the equation of section 3). Two orders exist:

- ``tile``: ``torch.kron(S[t], T[t])``, block ``(i, j)`` of ``W`` is ``sum_t S[t, i, j] * T[t]``;
- ``interleave``: ``torch.kron(T[t], S[t])``, as the formula is printed.

Both are one matrix product between flattened scalers and flattened templates (Van Loan and Pitsianis, 1993), followed
by a fixed shuffle of rows and columns.
"""

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor

Order = Literal["tile", "interleave"]


def from_blocks(blocks: Tensor, grid: tuple[int, int], block: tuple[int, int], order: Order = "tile") -> Tensor:
    """The ``(p*a, q*b)`` weight whose block ``(i, j)``, flattened, is row ``i*q + j`` of ``blocks`` ``(p*q, a*b)``."""
    (p, q), (a, b) = grid, block
    permutation = (0, 2, 1, 3) if order == "tile" else (2, 0, 3, 1)
    return blocks.reshape(p, q, a, b).permute(permutation).reshape(p * a, q * b)


def to_blocks(weight: Tensor, block: tuple[int, int], order: Order = "tile") -> Tensor:
    """The blocks of a ``(p*a, q*b)`` weight as rows of a ``(p*q, a*b)`` matrix; the inverse of :func:`from_blocks`."""
    a, b = block
    p, q = weight.shape[0] // a, weight.shape[1] // b
    if order == "tile":
        cut = weight.reshape(p, a, q, b).permute(0, 2, 1, 3)
    else:
        cut = weight.reshape(a, p, b, q).permute(1, 3, 0, 2)
    return cut.reshape(p * q, a * b)


def kron_sum(templates: Tensor, scalers: Tensor, order: Order = "tile") -> Tensor:
    """The weight ``sum_t T[t] (x) S[t]``: ``(N, a, b)`` and ``(N, p, q)`` to ``(p*a, q*b)``.

    >>> T, S = torch.ones(1, 2, 2), torch.eye(2)[None]
    >>> kron_sum(T, S).tolist()[0]
    [1.0, 1.0, 0.0, 0.0]
    """
    count, a, b = templates.shape
    _, p, q = scalers.shape
    blocks = scalers.reshape(count, p * q).T @ templates.reshape(count, a * b)
    return from_blocks(blocks, (p, q), (a, b), order)


def fit_scalers(weight: Tensor, templates: Tensor, order: Order = "tile") -> Tensor:
    """The scalers ``(N, p, q)`` that bring ``kron_sum`` closest to ``weight`` in Frobenius norm (least squares)."""
    count, a, b = templates.shape
    p, q = weight.shape[0] // a, weight.shape[1] // b
    blocks = to_blocks(weight, (a, b), order)
    solution = cast(Tensor, torch.linalg.lstsq(templates.reshape(count, a * b).T, blocks.T)[0])  # pyright: ignore[reportUnknownMemberType]
    return solution.reshape(count, p, q)


def balance(templates: Tensor, scalers: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Templates and scalers of equal root mean square with the same products.

    The product has a free scale, and Adam's steps do not depend on the scale of what they move: unequal factors let
    one of them run ahead (ours).
    """
    rms_templates = templates.square().mean().sqrt()
    rms_scalers = torch.cat([s.flatten() for s in scalers]).square().mean().sqrt()
    factor = (rms_scalers / rms_templates).sqrt()
    return templates * factor, [s / factor for s in scalers]


def fit_templates(
    weights: Sequence[Tensor], block: tuple[int, int], count: int, order: Order = "tile"
) -> tuple[Tensor, list[Tensor]]:
    """The best ``count`` templates for several weights at once, and the scalers of each weight (ours).

    All blocks of all weights are rows of one matrix; its leading right singular vectors are the templates and the
    projections on them the scalers, which is optimal in Frobenius norm (Van Loan and Pitsianis, 1993; Eckart-Young).
    The factors are balanced. ``count`` may not exceed the number of blocks or ``a*b``.
    """
    a, b = block
    rows = [to_blocks(w, block, order) for w in weights]
    u, s, vh = cast(tuple[Tensor, Tensor, Tensor], torch.linalg.svd(torch.cat(rows), full_matrices=False))  # pyright: ignore[reportUnknownMemberType]
    templates = vh[:count].reshape(count, a, b)
    projected = torch.split(u[:, :count] * s[:count], [len(r) for r in rows])  # pyright: ignore[reportUnknownMemberType]
    scalers = [
        part.T.reshape(count, w.shape[0] // a, w.shape[1] // b) for part, w in zip(projected, weights, strict=True)
    ]
    return balance(templates, scalers)
