"""Resampling: the scalers and small tensors of any size, read off the auxiliary model's (ours).

Depth is a map from target layers to source layers (:mod:`wave.layers`), width one of blocks
(:mod:`wave.width`), and both are differentiable. The same code runs on dense states, where a block
is an entry; this is how an ancestor grows before it is condensed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import torch
from timm.layers.patch_embed import resample_patch_embed
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor

from .errors import WaveError
from .layers import Depth, resample_depth
from .spec import AXES, KINDS, Kind, TargetSpec
from .template_spec import TemplateSpec
from .vit import HEADS, PATHS, axes_of
from .width import GROWING, Symmetry, Width, WidthMap, WidthScale

KIND_OF: Mapping[str, Kind] = {".".join(PATHS[kind]): kind for kind in KINDS}
"""Kind of each matrix by its name in a block."""


@dataclass(frozen=True)
class Resampling:
    """How a size is read off the auxiliary model. The defaults are measured (docs/tried.md).

    Args:
        depth: ``nearest`` takes the nearest layer; ``linear`` interpolates between neighbours;
            ``identity`` puts layers that add nothing (proj and fc2 zero) between the copied ones
            when growing, and is ``nearest`` when shrinking.
        width: ``leading`` gives narrow sizes the leading blocks, which in a canonical ancestor
            (:mod:`wave.canonical_form`) are the most important ones, and wide sizes further copies
            from the first on. ``even`` spaces blocks evenly.
        width_scale: Factor on the reading side of every matrix when the width changes.
            ``copies`` divides by the number of copies of a block, which keeps the function exactly
            for whole multiples. This needs order ``tile``: interleaved blocks run across heads.
            ``sqrt`` multiplies by ``sqrt(D_auxiliary / D)``, as a norm does whose leading channels
            carry nearly all of the stream. ``auto`` takes ``copies`` when growing and ``sqrt``
            when shrinking; ``none`` is 1.
        symmetry: Equal copies stay equal under training. ``split`` makes them unequal on the
            reading side and keeps the function (as LEMON, Wang et al., ICLR 2024); ``noise`` adds
            noise to every matrix; ``none`` leaves them equal.
        strength: Relative size of the difference or the noise, 0 to 1.
        seed: Where the difference or the noise is drawn from.

    Raises:
        WaveError: A value is unknown or out of range.
    """

    depth: Depth = "nearest"
    width: Width = "leading"
    width_scale: WidthScale = "auto"
    symmetry: Symmetry = "split"
    strength: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        options = {
            "depth": Depth,
            "width": Width,
            "width_scale": WidthScale,
            "symmetry": Symmetry,
        }
        for name, allowed in options.items():
            value = getattr(self, name)
            if value not in get_args(allowed):
                choices = ", ".join(get_args(allowed))
                raise WaveError(f"{name}={value!r} is unknown; use one of {choices}")
        if not 0 <= self.strength <= 1:
            raise WaveError(f"strength={self.strength} is not between 0 and 1")


def channel_map(
    spec: TemplateSpec, source: TargetSpec, target: TargetSpec, options: Resampling
) -> list[int]:
    """Return the source's channel of the residual stream for each channel of the target."""
    old, new = spec.shape(source), spec.shape(target)
    if old == new:
        return list(range(target.embed_dim))
    return WidthMap(spec, old, target=new, options=options).channels("embed")


def resample(
    state: Mapping[str, Tensor],
    source: TargetSpec,
    target: TargetSpec,
    spec: TemplateSpec,
    options: Resampling,
) -> dict[str, Tensor]:
    """Read the state of one size off that of another. Linear in ``state``, so gradients flow.

    Args:
        state: The source's own state (:func:`wave.vit.own_state`), or a dense state.
        source: The size of ``state``, as :meth:`wave.Family.resolve` returns it.
        target: The size to build, as :meth:`wave.Family.resolve` returns it.
        spec: The templates; for a dense state only their ``head_dim`` and blocks matter.
        options: Which layers and blocks are read.

    Returns:
        The target's own state. The classifier is left out when the number of classes differs, so
        that the target keeps the one it was created with.

    Raises:
        WaveError: The templates cannot change the width.
    """
    result = resample_depth(state, source.depth, target=target.depth, mode=options.depth)
    if source.num_classes != target.num_classes:
        result = {k: v for k, v in result.items() if k.split(".")[0] not in HEADS}
    old, new = spec.shape(source), spec.shape(target)
    if old != new:
        width = WidthMap(spec, old, target=new, options=options)
        result = {name: _resize_width(name, tensor, width) for name, tensor in result.items()}
    if old.head_dim != new.head_dim:
        result = _keep_products(result, new.head_dim / old.head_dim)
    return {
        name: _resize_images(name, tensor, source=source, target=target)
        for name, tensor in result.items()
    }


def _resize_width(name: str, tensor: Tensor, width: WidthMap) -> Tensor:
    """One tensor at another width."""
    generator = torch.Generator().manual_seed(_seed(name, width.options.seed))
    if name.endswith(".scalers"):
        result = _resize_scalers(name, tensor, width=width, generator=generator)
    else:
        result = _resize_dense(name, tensor, width=width, generator=generator)
    grows = any(width.grows(axis) for axis in GROWING)
    if width.options.symmetry == "noise" and grows and tensor.ndim > 1:
        rms = result.detach().square().mean().sqrt()
        noise = torch.randn(result.shape, generator=generator).to(result)
        result = result + width.options.strength * rms * noise
    return result


def _seed(name: str, seed: int) -> int:
    """A seed for one tensor that does not depend on which others there are, nor on their order."""
    # Not hash(): Python salts it anew in every process, and workers must draw the same.
    return seed * 1_000_003 + sum(map(ord, name)) * 7919 + len(name)


def _resize_scalers(
    name: str, tensor: Tensor, width: WidthMap, generator: torch.Generator
) -> Tensor:
    """Scalers (N, p, q): one entry per block, so the map is that of blocks."""
    _, _, holder, layer, _ = name.split(".")
    kind = KIND_OF[f"{holder}.{layer}"]
    rows, columns = AXES[kind]
    a, b = width.spec.blocks[kind]
    index = torch.tensor(width.index(rows, a), device=tensor.device)
    written = tensor.index_select(1, index)
    return width.read(written, 2, index=width.index(columns, b), axis=columns, generator=generator)


def _resize_dense(name: str, tensor: Tensor, width: WidthMap, generator: torch.Generator) -> Tensor:
    """A dense tensor: the columns of a matrix are its reading side, all else is written."""
    result = tensor
    for dim, axis in enumerate(axes_of(name)):
        if axis is None:
            continue
        index = width.channels(axis)
        if dim == 1 and tensor.ndim == 2:
            result = width.read(result, dim, index=index, axis=axis, generator=generator)
        else:
            result = result.index_select(dim, torch.tensor(index, device=tensor.device))
    return result


def _keep_products(state: Mapping[str, Tensor], ratio: float) -> dict[str, Tensor]:
    """Keep q and k's products when heads have ``ratio`` times the channels.

    timm divides the products by ``sqrt(head_dim)``, so q is multiplied by ``sqrt(ratio)``. Norms of
    q and k would take this factor away, so there it goes into their affine parts. They also divide
    by a root mean square over fewer channels, which is larger: with RmsNorm and channels that were
    zero, the same factor makes up for that exactly.
    """
    root, result = math.sqrt(ratio), dict(state)
    for name, tensor in state.items():
        if ".attn.qkv." in name:
            dim = 1 if name.endswith(".scalers") else 0
            q, k, v = tensor.chunk(3, dim)
            result[name] = torch.cat([q * root, k, v], dim)
        elif name.endswith("q_norm.bias"):
            result[name] = tensor * root
        elif name.endswith("k_norm.weight"):
            result[name] = tensor / root
    return result


def _resize_images(name: str, tensor: Tensor, source: TargetSpec, target: TargetSpec) -> Tensor:
    """Position and patch embedding for other images and patches, by timm's functions."""
    old_image, old_patch = source.pixels()
    new_image, new_patch = target.pixels()
    old_side, new_side = old_image // old_patch, new_image // new_patch
    if name == "pos_embed" and old_side != new_side:
        prefix = tensor.shape[1] - old_side**2
        new, old = [new_side, new_side], [old_side, old_side]
        return resample_abs_pos_embed(tensor, new, old, num_prefix_tokens=prefix)
    if name == "patch_embed.proj.weight" and old_patch != new_patch:
        return resample_patch_embed(tensor, [new_patch, new_patch])
    return tensor
