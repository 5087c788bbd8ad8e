"""The canonical form: the ancestor reordered by importance, with its function unchanged (ours).

A pre-norm transformer can be written in many bases that compute the same, and training leaves it in
an arbitrary one. Three freedoms are used:

- The residual stream may be turned by any orthogonal matrix that keeps the vector of ones, once the
  affine parts of the norms are folded into the matrices that read them (after SliceGPT, Ashkboos et
  al., ICLR 2024). Channels become principal components: the first half holds nearly everything.
- Heads and hidden units may change places. They are sorted by what they write into the stream.
- Inside a head, only the products of q and k, and of v and proj, matter. An SVD splits them, so
  that the same row is as important in all heads, and fewer templates serve them all.
"""

import copy
from dataclasses import dataclass

import torch
from timm.layers.norm import RmsNorm
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .importance import measure_moments
from .reordering import order_heads, order_hidden
from .typed import (
    attention_of,
    bias_of,
    blocks_of,
    eigh,
    mlp_of,
    optional_tensor,
    patch_embedding_of,
)
from .vit import HEADS, TOKENS, check_supported, head_dim_of


@torch.no_grad()
def canonical(ancestor: nn.Module, images: Tensor) -> VisionTransformer:
    """Reorder a model by importance without changing its function.

    What an architecture does not allow is left as it is: the stream, where something other than a
    norm with a linear layer behind it reads it (a maximum over tokens, a norm of the embeddings);
    q and k, where they have norms of their own.

    Args:
        ancestor: A trained model; it is not changed.
        images: (B, C, H, W), normalised as the model reads them. They decide what is important;
            a few hundred images, some thousand tokens, are enough.

    Returns:
        A copy with the same outputs up to rounding.

    Raises:
        WaveError: The model is not supported.

    >>> import timm
    >>> ancestor = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32).eval()
    >>> images = torch.randn(8, 3, 32, 32)
    >>> reordered = canonical(ancestor, images)
    >>> torch.allclose(reordered(images), ancestor(images), atol=1e-4)
    True
    """
    model = copy.deepcopy(check_supported(ancestor)).eval().cpu()
    moments = measure_moments(model, images)
    # In float64: every matrix is multiplied by rotations, and float32 would lose digits.
    model.double()
    readers = _readers(model)
    if readers is not None:
        turn = _principal(moments.stream)
        for reader in readers:
            _turn_reader(reader, turn)
        _turn_writers(model, turn)
    for i, block in enumerate(blocks_of(model)):
        order_hidden(block, moments.hidden[i].diagonal())
        order_heads(attention_of(block), moments.heads[i], size=head_dim_of(model))
    return model.to(next(ancestor.parameters()))


@dataclass(frozen=True)
class _Reader:
    """A norm of the stream, and the layers that read it."""

    norm: nn.Module
    layers: list[nn.Module]


def _readers(model: VisionTransformer) -> list[_Reader] | None:
    """All readers of the stream; None if it must stay as it is."""
    last = [model.get_submodule(name) for name in ("norm", "fc_norm")]
    last = [norm for norm in last if not isinstance(norm, nn.Identity)]
    embedding_norms = [model.get_submodule("norm_pre"), patch_embedding_of(model).norm]
    normed = any(not isinstance(norm, nn.Identity) for norm in embedding_norms)
    # A norm of the embeddings has channels of its own, and a maximum over tokens is taken by
    # channel: both would see the turn.
    if normed or len(last) != 1 or model.global_pool not in ("token", "avg"):
        return None
    readers: list[_Reader] = []
    for block in blocks_of(model):
        readers.append(_Reader(block.norm1, [attention_of(block).qkv]))
        readers.append(_Reader(block.norm2, [mlp_of(block).fc1]))
    heads = [getattr(model, name) for name in HEADS if hasattr(model, name)]
    readers.append(_Reader(last[0], heads))
    return readers if all(_can_fold(reader) for reader in readers) else None


def _can_fold(reader: _Reader) -> bool:
    """Whether the norm's affine part can move into the layers behind it."""
    if not isinstance(reader.norm, nn.LayerNorm | RmsNorm):
        return False
    if not all(isinstance(layer, nn.Linear) for layer in reader.layers):
        return False
    shift = optional_tensor(reader.norm, "bias")
    shifts = shift is not None and bool(shift.any())
    return not shifts or all(bias_of(layer) is not None for layer in reader.layers)


def _principal(moment: Tensor) -> Tensor:
    """An orthogonal matrix that keeps the vector of ones; its columns are near the components.

    Args:
        moment: Second moment of the normalised stream, (D, D).

    Returns:
        (D, D), columns in descending order of what they carry.
    """
    width = len(moment)
    ones = torch.full((width,), width**-0.5, dtype=moment.dtype)
    identity = torch.eye(width, dtype=moment.dtype)
    centre = identity - torch.outer(ones, ones)
    moment = centre @ moment @ centre
    # A LayerNorm subtracts the mean over channels, so the vector of ones carries nothing. Pushed
    # below all other eigenvalues, it is the first of eigh's ascending vectors, the last of ours.
    _, vectors = eigh(moment - moment.trace() * torch.outer(ones, ones))
    vectors = vectors.flip(1)
    vectors[:, -1] = ones
    # No channel may stand for the mean alone: the norm would remove it. The reflection that takes
    # the last unit vector to the ones moves every component by about 1/sqrt(D) only.
    axis = ones.clone()
    axis[-1] -= 1
    return vectors @ (identity - 2 * torch.outer(axis, axis) / axis.square().sum())


def _turn_reader(reader: _Reader, turn: Tensor) -> None:
    """Fold a norm's affine part into the layers behind it, and let them read the turned stream."""
    scale = optional_tensor(reader.norm, "weight")
    shift = optional_tensor(reader.norm, "bias")
    for layer in reader.layers:
        weight, bias = layer.get_parameter("weight"), bias_of(layer)
        if shift is not None and bool(shift.any()) and bias is not None:
            bias.add_(weight @ shift)
        scaled = weight if scale is None else weight * scale
        weight.copy_(scaled @ turn)
    if scale is not None:
        scale.fill_(1)
    if shift is not None:
        shift.zero_()


def _turn_writers(model: VisionTransformer, turn: Tensor) -> None:
    """Write into the turned stream; layer scales are folded into the layers before them."""
    for name in TOKENS:
        value = optional_tensor(model, name)
        if value is not None:
            value.copy_(value @ turn)
    _turn_writer(patch_embedding_of(model).proj, None, turn=turn)
    for block in blocks_of(model):
        _turn_writer(attention_of(block).proj, optional_tensor(block.ls1, "gamma"), turn=turn)
        _turn_writer(mlp_of(block).fc2, optional_tensor(block.ls2, "gamma"), turn=turn)


def _turn_writer(layer: nn.Module, gamma: Tensor | None, turn: Tensor) -> None:
    """Turn the rows of a layer that writes into the stream, its layer scale ``gamma`` included."""
    for part in (layer.get_parameter("weight"), bias_of(layer)):
        if part is None:
            continue
        rows = part.flatten(1) if part.ndim > 1 else part[:, None]
        # A layer scale is by channel, and the channels change: it cannot stay behind the layer.
        if gamma is not None:
            rows = rows * gamma[:, None]
        part.copy_((turn.T @ rows).reshape(part.shape))
    if gamma is not None:
        gamma.fill_(1)
