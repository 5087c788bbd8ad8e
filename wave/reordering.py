"""Heads and hidden units of a block in order of what they write into the stream (ours)."""

import torch
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from .typed import bias_of, mlp_of, qr, svd


def order_hidden(block: Block, energy: Tensor) -> None:
    """Sort hidden units by the mean square of what each writes.

    Args:
        block: Changed in place.
        energy: Mean square of each unit, (hidden,).
    """
    mlp = mlp_of(block)
    written = energy * mlp.fc2.weight.square().sum(0)
    order = written.argsort(descending=True, stable=True)
    for part in (mlp.fc1.weight, bias_of(mlp.fc1), *mlp.norm.parameters()):
        if part is not None:
            part.copy_(part[order])
    mlp.fc2.weight.copy_(mlp.fc2.weight[:, order])


def order_heads(attention: Attention, moment: Tensor, size: int) -> None:
    """Sort heads by the mean square of what each writes, and split their products by SVD.

    Args:
        attention: Changed in place.
        moment: Second moment of what proj reads, (attn, attn).
        size: Channels of one head.
    """
    heads = [slice(i * size, (i + 1) * size) for i in range(attention.num_heads)]
    order = _written(attention, moment, heads=heads).argsort(descending=True, stable=True)
    q_rows, k_rows, v_rows = _rows_with_bias(attention)
    q_and_k_are_free = _is_identity(attention.q_norm) and _is_identity(attention.k_norm)
    v_and_proj_are_free = _is_identity(attention.norm)
    new_q: list[Tensor] = []
    new_k: list[Tensor] = []
    new_v: list[Tensor] = []
    new_proj: list[Tensor] = []
    for head in (heads[int(i)] for i in order):
        q, k, v = q_rows[head], k_rows[head], v_rows[head]
        proj = attention.proj.weight[:, head].T
        if q_and_k_are_free:
            q, k = _split_product(q, k)
        if v_and_proj_are_free:
            v, proj = _split_product(v, proj)
        new_q.append(q)
        new_k.append(k)
        new_v.append(v)
        new_proj.append(proj)
    rows = torch.cat([*new_q, *new_k, *new_v])
    bias = bias_of(attention.qkv)
    attention.qkv.weight.copy_(rows[:, : attention.qkv.in_features])
    if bias is not None:
        bias.copy_(rows[:, -1])
    attention.proj.weight.copy_(torch.cat(new_proj).T)
    channels = (order[:, None] * size + torch.arange(size)).flatten()
    for part in attention.norm.parameters():
        part.copy_(part[channels])


def _is_identity(module: nn.Module) -> bool:
    return isinstance(module, nn.Identity)


def _written(attention: Attention, moment: Tensor, heads: list[slice]) -> Tensor:
    """Mean square of what each head writes: ``E |W x|^2 = tr(W E[x x^T] W^T)``, (heads,)."""
    energies: list[Tensor] = []
    for head in heads:
        weight = attention.proj.weight[:, head]
        energies.append((weight @ moment[head, head] * weight).sum())
    return torch.stack(energies)


def _rows_with_bias(attention: Attention) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of q, k and v, each with its bias as a last column, since both move together."""
    q, k, v = attention.qkv.weight.chunk(3)
    bias = bias_of(attention.qkv)
    if bias is None:
        return q, k, v
    q_bias, k_bias, v_bias = (part[:, None] for part in bias.chunk(3))
    return torch.cat([q, q_bias], 1), torch.cat([k, k_bias], 1), torch.cat([v, v_bias], 1)


def _split_product(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Replace ``a`` (n, p) and ``b`` (n, q) by matrices with the same ``a.T @ b``.

    Their rows are its singular vectors, in descending order and of equal norms.
    """
    # Through two QR decompositions: the SVD is then of (n, n), one head, not of (p, q).
    qa, ra = qr(a.T)
    qb, rb = qr(b.T)
    u, s, vh = svd(ra @ rb.T)
    root = s.sqrt()[:, None]
    return root * (qa @ u).T, root * (qb @ vh.T).T
