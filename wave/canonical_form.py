"""The ancestor in a basis where what carries most stands first, and heads look alike; its function is kept (ours).

Three freedoms of a pre-norm transformer are used. The residual stream may be turned by any orthogonal matrix that keeps
the vector of ones, once the norms' affine parts stand in the matrices that read them (after SliceGPT, Ashkboos et al.,
ICLR 2024): channels become principal components, so that the first half of them is nearly all of the stream. Heads and
hidden units may change places: by what they write into the stream. Inside a head, q and k, and v and proj, may be
multiplied by a matrix and its inverse: their products are split by SVD, so that the same row is as important in all
heads, and fewer templates serve them all.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from timm.layers.norm import RmsNorm
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from .vit import HEADS, blocks_of, check_supported, head_dim_of

_POSITIONS = ("cls_token", "reg_token", "dist_token", "pos_embed")


@torch.no_grad()
def canonical(ancestor: nn.Module, images: Tensor) -> VisionTransformer:
    """A copy of ``ancestor`` that computes what it computes, its blocks in order; ``images`` (B, C, H, W) as it reads
    them say what carries most, some thousand tokens are enough.

    What an architecture does not allow is left as it is: the stream where something other than a norm and a linear
    layer reads it (a maximum over tokens, a norm of the embeddings), q and k under norms of their own. Raises
    :class:`WaveError` for a model that is not supported.
    """
    model = copy.deepcopy(check_supported(ancestor)).eval().cpu()
    seen = _Seen(model)
    for some in torch.split(images.to(next(model.parameters())), 64):  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        model(some)
    seen.close()
    model.double()
    readers = _readers(model)
    if readers is not None:
        turn = _principal(seen.mean("stream"))
        for norm, layers in readers:
            _turn_reader(norm, layers, turn)
        _turn_writers(model, turn)
    for i, block in enumerate(blocks_of(model)):
        _order_hidden(block, seen.mean(f"hidden {i}").diagonal())
        _order_heads(block, seen.mean(f"heads {i}"), head_dim_of(model))
    return model.to(next(ancestor.parameters()))


class _Seen:
    """Second moments of what flows: of the stream at the norms of the blocks, of heads and hidden units."""

    def __init__(self, model: VisionTransformer) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}
        self.hooks: list[Any] = []
        width = model.embed_dim
        for i, block in enumerate(cast(list[Any], blocks_of(model))):
            for norm in (block.norm1, block.norm2):
                self._watch(norm, "stream", lambda x: nn.functional.layer_norm(x, [width]))
            self._watch(block.attn.proj, f"heads {i}", lambda x: x)
            self._watch(block.mlp.fc2, f"hidden {i}", lambda x: x)

    def _watch(self, module: nn.Module, name: str, change: Callable[[Tensor], Tensor]) -> None:
        self.hooks.append(module.register_forward_pre_hook(partial(self._add, name, change)))

    def _add(self, name: str, change: Callable[[Tensor], Tensor], _: nn.Module, given: tuple[Tensor]) -> None:
        x = change(given[0]).flatten(0, -2).double()
        self.sums[name] = self.sums.get(name, x.new_zeros(())) + x.T @ x
        self.counts[name] = self.counts.get(name, 0) + len(x)

    def mean(self, name: str) -> Tensor:
        return self.sums[name] / self.counts[name]

    def close(self) -> None:
        for hook in self.hooks:
            hook.remove()


def _readers(model: VisionTransformer) -> list[tuple[nn.Module, list[nn.Linear]]] | None:
    """The norms of the stream, each with the layers behind it; None if the stream must stay as it is."""
    heads = [getattr(model, name) for name in HEADS if hasattr(model, name)]
    last = [norm for name in ("norm", "fc_norm") if not isinstance(norm := model.get_submodule(name), nn.Identity)]
    pairs: list[tuple[nn.Module, list[Any]]] = []
    for block in blocks_of(model):
        pairs += [(block.norm1, [block.attn.qkv]), (block.norm2, [block.mlp.fc1])]
    pairs.append((last[0] if len(last) == 1 else nn.Identity(), heads))
    embedding = cast(Any, model.get_submodule("patch_embed"))
    plain = isinstance(model.get_submodule("norm_pre"), nn.Identity) and isinstance(embedding.norm, nn.Identity)
    if not plain or model.global_pool not in ("token", "avg"):
        return None
    for norm, layers in pairs:
        shift = getattr(norm, "bias", None)
        if not isinstance(norm, nn.LayerNorm | RmsNorm) or not all(isinstance(x, nn.Linear) for x in layers):
            return None
        if shift is not None and bool(shift.any()) and any(x.bias is None for x in layers):
            return None
    return cast(list[tuple[nn.Module, list[nn.Linear]]], pairs)


def _principal(moment: Tensor) -> Tensor:
    """An orthogonal matrix (D, D) that keeps the vector of ones, its columns near the principal components in order.

    Near, since no column may stand for the mean alone: a reflection that takes the last unit vector to the ones moves
    every component by about 1/sqrt(D).
    """
    width = len(moment)
    ones = torch.full((width,), width**-0.5, dtype=moment.dtype)
    centre = torch.eye(width, dtype=moment.dtype) - torch.outer(ones, ones)
    moment = centre @ moment @ centre
    _, vectors = cast(tuple[Tensor, Tensor], torch.linalg.eigh(moment - moment.trace() * torch.outer(ones, ones)))  # pyright: ignore[reportUnknownMemberType]
    vectors = vectors.flip(1)
    vectors[:, -1] = ones
    axis = ones.clone()
    axis[-1] -= 1
    return vectors @ (torch.eye(width, dtype=moment.dtype) - 2 * torch.outer(axis, axis) / axis.square().sum())


def _turn_reader(norm: nn.Module, layers: list[nn.Linear], turn: Tensor) -> None:
    """Put the norm's affine part into the layers behind it, then read the turned stream."""
    scale, shift = cast(Tensor | None, getattr(norm, "weight", None)), cast(Tensor | None, getattr(norm, "bias", None))
    for layer in layers:
        if shift is not None and bool(shift.any()):
            layer.bias.add_(layer.weight @ shift)
        weight = layer.weight if scale is None else layer.weight * scale
        layer.weight.copy_(weight @ turn)
    if scale is not None:
        scale.fill_(1)
    if shift is not None:
        shift.zero_()


def _turn_writers(model: VisionTransformer, turn: Tensor) -> None:
    """Write into the turned stream; layer scales are put into the layers before them."""
    for name in _POSITIONS:
        value = cast(Tensor | None, getattr(model, name, None))
        if value is not None:
            value.copy_(value @ turn)
    writers: list[tuple[Any, Any]] = [(model.get_submodule("patch_embed").get_submodule("proj"), None)]
    for block in blocks_of(model):
        writers += [(block.attn.proj, block.ls1), (block.mlp.fc2, block.ls2)]
    for layer, scale in writers:
        gamma = getattr(scale, "gamma", None)
        for part in (layer.weight, layer.bias):
            if part is None:
                continue
            rows = part.flatten(1) if part.ndim > 1 else part[:, None]
            rows = rows if gamma is None else rows * gamma[:, None]
            part.copy_((turn.T @ rows).reshape(part.shape))
        if gamma is not None:
            gamma.fill_(1)


def _order_hidden(block: Block, energy: Tensor) -> None:
    """Hidden units by the mean square of what each writes."""
    mlp = cast(Any, block.mlp)
    order: Tensor = (energy * mlp.fc2.weight.square().sum(0)).argsort(descending=True, stable=True)
    for part in (mlp.fc1.weight, mlp.fc1.bias, *mlp.norm.parameters()):
        if part is not None:
            part.copy_(part[order])
    mlp.fc2.weight.copy_(mlp.fc2.weight[:, order])


def _order_heads(block: Block, moment: Tensor, size: int) -> None:
    """Heads by the mean square of what each writes, and inside each head the products of q and k, of v and proj, split
    by SVD."""
    attention: Any = block.attn
    count, (q, k, v) = attention.num_heads, attention.qkv.weight.chunk(3)
    biases = [None] * 3 if attention.qkv.bias is None else list(attention.qkv.bias.chunk(3))
    heads = [slice(i * size, (i + 1) * size) for i in range(count)]
    written = torch.stack(
        [((w := attention.proj.weight[:, h]) @ moment[h, h] * w).sum() for h in heads]
    )  # E |W x|^2 = tr(W E[x x^T] W^T)
    order = written.argsort(descending=True, stable=True)
    rows = [torch.cat([w, b[:, None]], 1) if b is not None else w for w, b in zip((q, k, v), biases, strict=True)]
    new: list[list[Tensor]] = [[], [], [], []]
    for h in (heads[int(i)] for i in order):
        parts = [r[h] for r in rows] + [attention.proj.weight[:, h].T]
        if isinstance(attention.q_norm, nn.Identity) and isinstance(attention.k_norm, nn.Identity):
            parts[0], parts[1] = _split(parts[0], parts[1])
        if isinstance(attention.norm, nn.Identity):
            parts[2], parts[3] = _split(parts[2], parts[3])
        for kept, part in zip(new, parts, strict=True):
            kept.append(part)
    wide = torch.cat([torch.cat(some) for some in new[:3]])
    attention.qkv.weight.copy_(wide[:, : q.shape[1]])
    if attention.qkv.bias is not None:
        attention.qkv.bias.copy_(wide[:, -1])
    attention.proj.weight.copy_(torch.cat(new[3]).T)
    channels = (order[:, None] * size + torch.arange(size)).flatten()
    for part in attention.norm.parameters():
        part.copy_(part[channels])


def _split(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """``(n, p)`` and ``(n, q)`` with the same ``a.T @ b`` whose rows are its singular vectors, in order and of equal
    norms."""
    (qa, ra), (qb, rb) = (cast(tuple[Tensor, Tensor], torch.linalg.qr(x.T)) for x in (a, b))  # pyright: ignore[reportUnknownMemberType]
    u, s, vh = cast(tuple[Tensor, Tensor, Tensor], torch.linalg.svd(ra @ rb.T))  # pyright: ignore[reportUnknownMemberType]
    root = s.sqrt()[:, None]
    return root * (qa @ u).T, root * (qb @ vh.T).T
