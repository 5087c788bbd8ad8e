"""The scalers and small tensors of any size as a differentiable function of the auxiliary model's (ours).

Depth is a map from target layers to source layers, width one of blocks (:mod:`wave.width`). The same code runs on dense
states (plain timm weights are the case of full-size blocks), which is how an ancestor grows before it is condensed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
from timm.layers.patch_embed import resample_patch_embed
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor

from .errors import WaveError
from .spec import AXES, Kind, TargetSpec, TemplateSpec
from .vit import HEADS, PATHS, axes
from .width import GROWING, Symmetry, Width, WidthMap, WidthScale

Depth = Literal["nearest", "linear", "identity"]
KIND_OF: Mapping[str, Kind] = {f"{holder}.{name}": kind for kind, (holder, name) in PATHS.items()}


@dataclass(frozen=True)
class Resampling:
    """How a size is read off the auxiliary model.

    ``depth``: ``nearest`` layer, ``linear`` interpolation between neighbours, or ``identity`` layers (proj
    and fc2 zero) between the copied ones when growing. ``width``: narrow sizes have the ``leading`` blocks,
    which of a canonical ancestor (:mod:`wave.canonical_form`) are the most important ones, and wide sizes
    copies of the leading ones behind all; or blocks are selected and copied ``even``ly. ``width_scale``:
    what the reading side of every matrix is multiplied by when the width changes: ``copies`` divides by the
    number of copies of a block, which preserves the function exactly for whole multiples (order ``tile``
    only: interleaved blocks run across heads); ``sqrt`` multiplies by sqrt(D_auxiliary / D), as a norm does
    whose leading channels carry nearly all; ``auto`` takes ``copies`` when growing and ``sqrt`` when
    shrinking; ``none`` is one. ``symmetry``: copies made by growing stay identical under training unless
    they are ``split`` unequally on the reading side (as in LEMON; the function is kept) or get ``noise``;
    ``strength`` is relative, 0 to 1. The defaults are measured: docs/tried.md.
    """

    depth: Depth = "nearest"
    width: Width = "leading"
    width_scale: WidthScale = "auto"
    symmetry: Symmetry = "split"
    strength: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        options = (("depth", Depth), ("width", Width), ("width_scale", WidthScale), ("symmetry", Symmetry))
        for name, allowed in options:
            if getattr(self, name) not in get_args(allowed):
                raise WaveError(f"{name}={getattr(self, name)!r} is unknown; use one of {', '.join(get_args(allowed))}")
        if not 0 <= self.strength <= 1:
            raise WaveError(f"strength={self.strength} is not between 0 and 1")


def depth_map(source: int, target: int) -> list[float]:
    """Position in the source of each target layer: j / (L - 1) * (L_source - 1); a single layer reads the first."""
    return [j * (source - 1) / max(target - 1, 1) for j in range(target)]


def nearest(x: float) -> int:
    """The layer that a position is closest to, halves upwards."""
    return math.floor(x + 0.5)


def channel_map(spec: TemplateSpec, source: TargetSpec, target: TargetSpec, options: Resampling) -> list[int]:
    """The source's channel of the residual stream that each of the target's is read off."""
    old, new = spec.shape(source), spec.shape(target)
    return list(range(target.embed_dim)) if old == new else WidthMap(spec, old, new, options).channels("embed")


def _resize_width(name: str, tensor: Tensor, width: WidthMap) -> Tensor:
    generator = torch.Generator().manual_seed(width.options.seed * 1_000_003 + sum(map(ord, name)) * 7919 + len(name))
    kind = KIND_OF.get(".".join(name.split(".")[2:4])) if name.startswith("blocks.") else None
    if kind is not None and name.endswith(".scalers"):
        (rows, columns), (a, b) = AXES[kind], width.spec.blocks[kind]
        grown = tensor.index_select(1, torch.tensor(width.index(rows, a), device=tensor.device))
        result = width.read(grown, 2, width.index(columns, b), columns, generator)
    else:
        result = tensor
        for dim, axis in enumerate(axes(name, width.spec)):
            if axis is None:
                continue
            index = width.channels(axis)
            if dim == 1 and tensor.ndim == 2:
                result = width.read(result, dim, index, axis, generator)
            else:
                result = result.index_select(dim, torch.tensor(index, device=tensor.device))
    if width.options.symmetry == "noise" and any(map(width.grows, GROWING)) and tensor.ndim > 1:
        rms = result.detach().square().mean().sqrt()
        noise = torch.randn(result.shape, generator=generator).to(result)
        result = result + width.options.strength * rms * noise
    return result


def _keep_products(state: Mapping[str, Tensor], ratio: float) -> dict[str, Tensor]:
    """The state with heads of ``ratio`` times the channels, its products of q and k as they were: timm divides them by
    sqrt(head_dim).

    q takes the factor. Where norms of q and k take it away, their affine parts take it, and with it that over fewer
    channels they divide by a larger root mean square (as is exact for RmsNorm and channels that were zero).
    """
    root, result = math.sqrt(ratio), dict(state)
    for name, tensor in state.items():
        if ".attn.qkv." in name:
            q, *kv = tensor.chunk(3, 1 if name.endswith(".scalers") else 0)
            result[name] = torch.cat([q * root, *kv], 1 if name.endswith(".scalers") else 0)
        elif name.endswith("q_norm.bias"):
            result[name] = tensor * root
        elif name.endswith("k_norm.weight"):
            result[name] = tensor / root
    return result


def _resize_images(name: str, tensor: Tensor, source: TargetSpec, target: TargetSpec) -> Tensor:
    patches = [cast(int, s.patch_size) for s in (source, target)]
    grids = [cast(int, s.img_size) // p for s, p in zip((source, target), patches, strict=True)]
    if name == "pos_embed" and grids[0] != grids[1]:
        prefix = tensor.shape[1] - grids[0] ** 2
        return resample_abs_pos_embed(tensor, [grids[1]] * 2, [grids[0]] * 2, num_prefix_tokens=prefix)
    if name == "patch_embed.proj.weight" and patches[0] != patches[1]:
        return resample_patch_embed(tensor, [patches[1]] * 2)
    return tensor


def _layers(state: Mapping[str, Tensor], source: int, target: int, mode: Depth) -> dict[str, Tensor]:
    """The state with its blocks renumbered, repeated, interpolated or interleaved with identity layers."""
    by_layer: dict[int, dict[str, Tensor]] = {i: {} for i in range(source)}
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.startswith("blocks."):
            _, layer, rest = name.split(".", 2)
            by_layer[int(layer)][rest] = tensor
        else:
            result[name] = tensor
    growing = mode == "identity" and target > source
    copied = {nearest(i * (target - 1) / max(source - 1, 1)): i for i in range(source)} if growing else {}
    for j, x in enumerate(depth_map(source, target)):
        low = min(int(x), source - 1)
        high, weight = min(low + 1, source - 1), x - int(x)
        for rest, tensor in by_layer[copied.get(j, nearest(x))].items():
            if mode == "linear" and weight > 0:
                tensor = torch.lerp(by_layer[low][rest], by_layer[high][rest], weight)
            if growing and j not in copied and rest.startswith(("attn.proj.", "mlp.fc2.")):
                tensor = tensor * 0
            result[f"blocks.{j}.{rest}"] = tensor
    return result


def resample(
    state: Mapping[str, Tensor], source: TargetSpec, target: TargetSpec, spec: TemplateSpec, options: Resampling
) -> dict[str, Tensor]:
    """The own state (:func:`wave.vit.own_state`) of ``target`` from that of ``source``; both sizes fully resolved.

    Linear in ``state``, so gradients flow through it. Head tensors are left out when the number of classes differs:
    the target then keeps its fresh head. A dense state works too, with blocks read as ``head_dim`` squares. Raises
    :class:`WaveError` when the templates cannot change the width.
    """
    result = _layers(state, source.depth, target.depth, options.depth)
    if source.num_classes != target.num_classes:
        result = {k: v for k, v in result.items() if k.split(".")[0] not in HEADS}
    old, new = spec.shape(source), spec.shape(target)
    if old != new:
        width = WidthMap(spec, old, new, options)
        result = {k: _resize_width(k, v, width) for k, v in result.items()}
    if old.head_dim != new.head_dim:
        result = _keep_products(result, new.head_dim / old.head_dim)
    return {k: _resize_images(k, v, source, target) for k, v in result.items()}
