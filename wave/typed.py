"""Typed access to what timm, torch and json leave untyped: all casts of the library are here.

Nothing here checks anything at run time. :func:`wave.vit.check_supported` is what makes sure that a
model has the modules that these functions promise.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, cast

import torch
from timm.data.mixup import Mixup
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from timm.optim._param_groups import (
    param_groups_weight_decay,  # pyright: ignore[reportUnknownVariableType]
)
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn


class MlpModules(Protocol):
    """timm's ``Mlp``; its layers could also be convolutions, but not in a supported model."""

    fc1: nn.Linear
    norm: nn.Module
    fc2: nn.Linear


class PatchEmbedding(Protocol):
    """timm's ``PatchEmbed``: ``img_size`` is None for a model that reads images of any size."""

    img_size: tuple[int, int] | None
    patch_size: tuple[int, int]
    num_patches: int
    proj: nn.Conv2d
    norm: nn.Module


# Modules of timm's Vision Transformer


def as_vit(model: nn.Module) -> VisionTransformer:
    """``model`` with the type that a caller knows it has."""
    return cast(VisionTransformer, model)


def blocks_of(model: nn.Module) -> list[Block]:
    """The transformer blocks, with the type that timm's ``Sequential`` hides."""
    return cast(list[Block], list(as_vit(model).blocks))


def attention_of(block: Block) -> Attention:
    """The attention of a block."""
    return cast(Attention, block.attn)


def mlp_of(block: Block) -> MlpModules:
    """The MLP of a block."""
    return cast(MlpModules, block.mlp)


def patch_embedding_of(model: nn.Module) -> PatchEmbedding:
    """The patch embedding of a model."""
    return cast(PatchEmbedding, model.get_submodule("patch_embed"))


def bias_of(layer: nn.Module) -> nn.Parameter | None:
    """The bias of a linear layer, which may lack one although torch's types say otherwise."""
    return cast(nn.Parameter | None, layer.bias)


def optional_tensor(module: nn.Module, name: str) -> Tensor | None:
    """A tensor that not every module of its class has, such as ``cls_token`` or a norm's bias."""
    return cast(Tensor | None, getattr(module, name, None))


def parameter_dict(modules: nn.ModuleList, index: int) -> nn.ParameterDict:
    """One of a list of parameter dicts."""
    return cast(nn.ParameterDict, modules[index])


# What timm keeps of a model's making


def pretrained_config(model: VisionTransformer) -> Mapping[str, object]:
    """What timm knows of a model's checkpoint; ``architecture`` is its name in timm."""
    return cast(Mapping[str, object], model.pretrained_cfg or {})


def creation_arguments(model: VisionTransformer) -> Mapping[str, object]:
    """The keyword arguments that ``timm.create_model`` was called with."""
    return cast(Mapping[str, object], getattr(model, "_model_args", {}))


# Calls into timm


def intermediates(
    model: VisionTransformer, images: Tensor
) -> tuple[Tensor, list[Tensor | tuple[Tensor, Tensor]]]:
    """``forward_intermediates``: the final tokens, and per block (patch tokens, prefix tokens)."""
    found = model.forward_intermediates(images, return_prefix_tokens=True, output_fmt="NLC")
    return cast(tuple[Tensor, list[Tensor | tuple[Tensor, Tensor]]], found)


def enable_checkpointing(model: nn.Module) -> None:
    """Recompute activations in the backward pass, in a model that offers it."""
    cast(Any, model).set_grad_checkpointing(True)


def weight_decay_groups(
    model: nn.Module, weight_decay: float, without: Sequence[str]
) -> list[dict[str, Any]]:
    """timm's two parameter groups: without and with weight decay."""
    split = cast(Any, param_groups_weight_decay)
    return cast(
        list[dict[str, Any]], split(model, weight_decay, no_weight_decay_list=tuple(without))
    )


def mixed(mixup: Mixup, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Images mixed in place, and probabilities (B, K) in place of labels."""
    return cast(tuple[Tensor, Tensor], cast(Any, mixup)(images, labels))


def averaged(average: ModelEmaV3) -> nn.Module:
    """The model that holds the moving average."""
    return cast(nn.Module, average.module)


# Linear algebra, of which torch declares no result


def svd(matrix: Tensor, full_matrices: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """``U``, ``S`` and ``V^T``."""
    decompose = cast(Any, torch.linalg.svd)  # pyright: ignore[reportUnknownMemberType]
    return cast(tuple[Tensor, Tensor, Tensor], decompose(matrix, full_matrices=full_matrices))


def qr(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """``Q`` and ``R``."""
    return cast(tuple[Tensor, Tensor], torch.linalg.qr(matrix))  # pyright: ignore[reportUnknownMemberType]


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues in ascending order, and the eigenvectors as columns."""
    return cast(tuple[Tensor, Tensor], torch.linalg.eigh(matrix))  # pyright: ignore[reportUnknownMemberType]


def least_squares(a: Tensor, b: Tensor) -> Tensor:
    """The ``X`` that brings ``A X`` closest to ``B``."""
    return cast(Tensor, torch.linalg.lstsq(a, b)[0])  # pyright: ignore[reportUnknownMemberType]


def split(tensor: Tensor, sizes: int | list[int]) -> Sequence[Tensor]:
    """``torch.split`` along the first axis."""
    return cast(Sequence[Tensor], torch.split(tensor, sizes))  # pyright: ignore[reportUnknownMemberType]


# JSON


def json_object(value: object) -> dict[str, Any]:
    """``value`` if it is a JSON object; raises TypeError otherwise."""
    if not isinstance(value, dict):
        raise TypeError(f"{type(value).__name__} instead of a JSON object")
    return cast(dict[str, Any], value)


def json_values(value: object) -> Iterable[object]:
    """The values of a JSON object or list; none of anything else."""
    if isinstance(value, dict):
        return cast(dict[str, object], value).values()
    return cast(list[object], value) if isinstance(value, list) else ()
