"""Sums of Kronecker products, and the best templates and scalers for given weights.

A weight ``W`` of shape ``(p*a, q*b)`` is ``sum_t S[t] (x) T[t]``, with templates ``T`` of shape
``(N, a, b)`` and scalers ``S`` of shape ``(N, p, q)`` (WAVE, Feng et al., CVPR 2025, arXiv
2406.17503, section 3). There are two orders:

- ``tile``: ``torch.kron(S[t], T[t])``; block ``(i, j)`` of ``W`` is ``sum_t S[t, i, j] * T[t]``;
- ``interleave``: ``torch.kron(T[t], S[t])``, as the paper prints the formula.

Both hold the same numbers, with rows and columns permuted: one matrix product of flattened scalers
and flattened templates (Van Loan and Pitsianis, 1993), followed by a fixed shuffle.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from .typed import least_squares, split, svd

Order = Literal["tile", "interleave"]
"""Which factor of the Kronecker products is the outer one: scalers, or templates."""


def from_blocks(
    blocks: Tensor, grid: tuple[int, int], block: tuple[int, int], order: Order = "tile"
) -> Tensor:
    """Assemble a weight ``(p*a, q*b)`` from its blocks, the rows of ``blocks`` ``(p*q, a*b)``.

    Args:
        blocks: Row ``i*q + j`` is block ``(i, j)``, flattened.
        grid: ``(p, q)``, the number of blocks down and across.
        block: ``(a, b)``, the shape of one block.
        order: Which factor of the Kronecker product is the outer one.
    """
    (p, q), (a, b) = grid, block
    # "tile" keeps the entries of a block together: row (p, a), column (q, b). "interleave" spreads
    # them: row (a, p), column (b, q), so that a block is a strided set of rows and columns.
    permutation = (0, 2, 1, 3) if order == "tile" else (2, 0, 3, 1)
    return blocks.reshape(p, q, a, b).permute(permutation).reshape(p * a, q * b)


def to_blocks(weight: Tensor, block: tuple[int, int], order: Order = "tile") -> Tensor:
    """Cut a weight ``(p*a, q*b)`` into rows ``(p*q, a*b)``: the inverse of :func:`from_blocks`."""
    a, b = block
    p, q = weight.shape[0] // a, weight.shape[1] // b
    if order == "tile":
        cut = weight.reshape(p, a, q, b).permute(0, 2, 1, 3)
    else:
        cut = weight.reshape(a, p, b, q).permute(1, 3, 0, 2)
    return cut.reshape(p * q, a * b)


def kron_sum(templates: Tensor, scalers: Tensor, order: Order = "tile") -> Tensor:
    """Build the weight ``W = sum_t S[t] (x) T[t]`` (WAVE, section 3).

    Args:
        templates: ``(N, a, b)``.
        scalers: ``(N, p, q)``.
        order: Which factor is the outer one.

    Returns:
        The weight, ``(p*a, q*b)``; differentiable in both factors.

    >>> templates, scalers = torch.ones(1, 2, 2), torch.eye(2)[None]
    >>> kron_sum(templates, scalers)
    tensor([[1., 1., 0., 0.],
            [1., 1., 0., 0.],
            [0., 0., 1., 1.],
            [0., 0., 1., 1.]])
    """
    count, a, b = templates.shape
    _, p, q = scalers.shape
    # Adding N Kronecker products would build N weights. This builds one, p*q*N*a*b operations.
    blocks = scalers.reshape(count, p * q).T @ templates.reshape(count, a * b)
    return from_blocks(blocks, (p, q), (a, b), order=order)


def fit_scalers(weight: Tensor, templates: Tensor, order: Order = "tile") -> Tensor:
    """Find the scalers that bring :func:`kron_sum` closest to a weight in Frobenius norm (ours).

    Args:
        weight: ``(p*a, q*b)``.
        templates: ``(N, a, b)``, linearly independent.
        order: Which factor is the outer one.

    Returns:
        The scalers, ``(N, p, q)``.

    >>> templates = torch.eye(4).reshape(4, 2, 2)
    >>> weight = torch.arange(16.0).reshape(4, 4)
    >>> torch.allclose(kron_sum(templates, fit_scalers(weight, templates)), weight)
    True
    """
    count, a, b = templates.shape
    p, q = weight.shape[0] // a, weight.shape[1] // b
    blocks = to_blocks(weight, (a, b), order)
    solution = least_squares(templates.reshape(count, a * b).T, blocks.T)
    return solution.reshape(count, p, q)


def balance(templates: Tensor, scalers: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Rescale templates and scalers to equal root mean squares, with the same products (ours)."""
    # The scale of a product can move freely between its factors, while the size of Adam's steps
    # does not depend on the scale of what it moves: the smaller factor would change faster.
    rms_templates = templates.square().mean().sqrt()
    rms_scalers = torch.cat([s.flatten() for s in scalers]).square().mean().sqrt()
    factor = (rms_scalers / rms_templates).sqrt()
    return templates * factor, [s / factor for s in scalers]


def fit_templates(
    weights: Sequence[Tensor], block: tuple[int, int], count: int, order: Order = "tile"
) -> tuple[Tensor, list[Tensor]]:
    """Find the best ``count`` templates for several weights at once, with their scalers (ours).

    The blocks of all weights are the rows of one matrix. Its leading right singular vectors are the
    templates, and the projections on them the scalers, which is optimal in Frobenius norm (Van Loan
    and Pitsianis, 1993; Eckart and Young, 1936). Both factors are then balanced.

    Args:
        weights: Matrices whose sides are multiples of the block's.
        block: ``(a, b)``, the shape of a template.
        count: At most the number of blocks, and at most ``a*b``.
        order: Which factor is the outer one.

    Returns:
        Templates ``(N, a, b)``, and for each weight its scalers ``(N, p, q)``.

    >>> weights = [torch.eye(4), torch.ones(2, 6)]
    >>> templates, scalers = fit_templates(weights, (2, 2), count=2)
    >>> templates.shape, [tuple(s.shape) for s in scalers]
    (torch.Size([2, 2, 2]), [(2, 2, 2), (2, 1, 3)])
    >>> torch.allclose(kron_sum(templates, scalers[0]), weights[0], atol=1e-6)
    True
    """
    a, b = block
    rows = [to_blocks(w, block, order) for w in weights]
    u, s, vh = svd(torch.cat(rows), full_matrices=False)
    templates = vh[:count].reshape(count, a, b)
    projections = split(u[:, :count] * s[:count], [len(r) for r in rows])
    grids = [(w.shape[0] // a, w.shape[1] // b) for w in weights]
    scalers = [part.T.reshape(count, *grid) for part, grid in zip(projections, grids, strict=True)]
    return balance(templates, scalers)
