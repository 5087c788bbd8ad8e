"""Which of timm's ViTs are supported, templated() and materialise(); only canonical.py knows their modules too."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from timm.layers.attention import Attention
from timm.layers.mlp import Mlp
from timm.layers.patch_embed import PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from .bank import TemplateBank
from .errors import WaveError
from .linear import TemplatedLinear
from .shape import Axis, Shape
from .spec import KINDS, Kind, TemplateSpec

PATHS: Mapping[Kind, tuple[str, str]] = {k: ("attn" if k in ("qkv", "proj") else "mlp", k) for k in KINDS}
HEADS = ("head", "head_dist")
POOLINGS = ("token", "avg", "max", "avgmax")
BANK = "templates"


def check_supported(model: nn.Module) -> VisionTransformer:
    """``model`` itself if templates can build it, else :class:`WaveError` that names what stands in the way.

    Supported are timm's ``VisionTransformer`` and ``VisionTransformerDistilled`` with plain blocks: class,
    distillation and register tokens, layer scale, qk norm, and token, average or maximum pooling.
    """
    name = type(model).__name__
    if type(model) not in (VisionTransformer, VisionTransformerDistilled):
        raise WaveError(
            f"{name} is not supported: templates need timm's VisionTransformer (vit_*, deit_*), without windows, "
            "convolutions or rotary embeddings; try vit_base_patch16_224"
        )
    vit = cast(VisionTransformer, model)
    parts: list[tuple[str, nn.Module, type[nn.Module]]] = [
        ("patch_embed", vit.get_submodule("patch_embed"), PatchEmbed)
    ]
    for i, block in enumerate(blocks_of(vit)):
        parts.append((f"blocks.{i}", block, Block))
        if type(block) is Block:
            parts += [(f"blocks.{i}.attn", block.attn, Attention), (f"blocks.{i}.mlp", block.mlp, Mlp)]
    for where, part, wanted in parts:
        if type(part) is not wanted:
            raise WaveError(f"{name}.{where} is {type(part).__name__}; only timm's {wanted.__name__} is supported")
    if vit.attn_pool is not None or vit.global_pool not in POOLINGS:
        raise WaveError(f"{name} has global_pool={vit.global_pool!r}; supported are {', '.join(POOLINGS)}")
    if any(getattr(block.attn, "gate", None) is not None for block in blocks_of(vit)):
        raise WaveError(f"{name} has gated attention, which is not supported")
    return vit


def blocks_of(model: nn.Module) -> list[Block]:
    """The transformer blocks, with the type that timm's ``Sequential`` hides."""
    return cast(list[Block], list(cast(VisionTransformer, model).blocks))


def head_dim_of(model: nn.Module) -> int:
    """Channels of one attention head."""
    return cast(int, blocks_of(model)[0].attn.head_dim)


def shape_of(model: nn.Module) -> Shape:
    """The lengths of the axes of a plain or templated model."""
    block = cast(Any, blocks_of(model)[0])
    embed = cast(VisionTransformer, model).embed_dim
    return Shape(embed, block.attn.num_heads, block.attn.head_dim, block.mlp.fc1.out_features)


def images_of(model: nn.Module) -> tuple[tuple[int, int], tuple[int, int], int]:
    """Height and width of the images, height and width of the patches, and the number of channels."""
    patches = cast(Any, model.get_submodule("patch_embed"))
    return patches.img_size or (0, 0), patches.patch_size, patches.proj.in_channels


def linears(model: nn.Module) -> Iterator[tuple[int, Kind, nn.Module, str]]:
    """The four linear layers of every block: layer index, kind, the module that holds it, and its name there."""
    for i, block in enumerate(blocks_of(model)):
        for kind in KINDS:
            holder, name = PATHS[kind]
            yield i, kind, getattr(block, holder), name


def templated(model: nn.Module, bank: TemplateBank) -> VisionTransformer:
    """``model``, changed in place: its four matrices a block become :class:`TemplatedLinear` layers of ``bank``.

    The bank is registered as ``model.templates``. Scalers start random. Raises :class:`WaveError` when the model or
    its shape is not supported; the model is then unchanged.
    """
    vit = check_supported(model)
    shape = shape_of(vit)
    bank.spec.check(shape)
    layers: list[tuple[nn.Module, str, TemplatedLinear]] = []
    for _, kind, holder, name in linears(vit):
        dense = cast(nn.Linear, getattr(holder, name))
        bias = cast(nn.Parameter | None, dense.bias)
        layer = TemplatedLinear(bank, kind, shape, bias is not None, str(dense.weight.device))
        layer.bias = bias
        layers.append((holder, name, layer))
    for holder, name, layer in layers:
        setattr(holder, name, layer)
    vit.register_module(BANK, bank)
    return vit


@torch.no_grad()
def materialise(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of the plain timm model that computes what the templated ``model`` computes."""
    layers = {f"blocks.{i}.{PATHS[k][0]}.{PATHS[k][1]}": getattr(holder, name) for i, k, holder, name in linears(model)}
    state = {k: v for k, v in own_state(model).items() if not k.endswith(".scalers")}
    state |= {f"{name}.weight": layer.weight for name, layer in layers.items()}
    return {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}


def own_state(model: nn.Module) -> dict[str, Tensor]:
    """All of a templated model's live parameters but the templates: scalers, biases and the other small tensors."""
    return {k: v for k, v in model.named_parameters() if not k.startswith(f"{BANK}.")}


def axes(name: str, spec: TemplateSpec) -> tuple[Axis | None, ...]:
    """Which axes of a tensor of a plain or templated state change with the size, by timm's name; scalers excluded."""
    module, _, leaf = name.rpartition(".")
    short = module.rsplit(".", 1)[-1]
    if name in ("cls_token", "reg_token", "dist_token", "pos_embed"):
        return (None, None, "embed")
    if short in HEADS:
        return (None, "embed") if leaf == "weight" else (None,)
    if short == "qkv":
        return ("qkv",) if leaf == "bias" else ("qkv", "embed")
    if short == "fc1" or module.endswith("mlp.norm"):
        return ("hidden",) if leaf == "bias" or short == "norm" else ("hidden", "embed")
    if short in ("q_norm", "k_norm"):
        return ("head",)
    if module.endswith("attn.norm"):
        return ("attn",)
    if module == "patch_embed.proj" and leaf == "weight":
        return ("embed", None, None, None)
    if leaf == "weight" and short in ("proj", "fc2"):
        return ("embed", "attn" if short == "proj" else "hidden")
    return ("embed",)
