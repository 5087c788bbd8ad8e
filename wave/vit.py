"""Which of timm's Vision Transformers are supported, and how one becomes templated and plain again.

Besides this file, only ``typed``, ``canonical_form``, ``importance`` and ``reordering`` know what
timm calls its modules.
"""

from collections.abc import Iterator, Mapping

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
from .spec import KINDS, Kind
from .typed import as_vit, attention_of, bias_of, blocks_of, mlp_of, patch_embedding_of

PATHS: Mapping[Kind, tuple[str, str]] = {
    "qkv": ("attn", "qkv"),
    "proj": ("attn", "proj"),
    "fc1": ("mlp", "fc1"),
    "fc2": ("mlp", "fc2"),
}
"""The module of a block that holds each kind, and its name there."""
HEADS = ("head", "head_dist")
TOKENS = ("cls_token", "reg_token", "dist_token", "pos_embed")
POOLINGS = ("token", "avg", "max", "avgmax")
BANK = "templates"


def check_supported(model: nn.Module) -> VisionTransformer:
    """Return ``model`` itself if templates can build it.

    Supported are timm's ``VisionTransformer`` and ``VisionTransformerDistilled`` with plain blocks:
    class, distillation and register tokens, layer scale, qk norm, and token, average or maximum
    pooling.

    Raises:
        WaveError: They cannot; the message names what stands in the way.

    >>> import timm
    >>> check_supported(timm.create_model("resnet18"))
    Traceback (most recent call last):
    wave.errors.WaveError: ResNet is not supported: ...
    """
    name = type(model).__name__
    # By identity: a subclass may compute something else from the same modules.
    if type(model) not in (VisionTransformer, VisionTransformerDistilled):
        raise WaveError(
            f"{name} is not supported: templates need timm's VisionTransformer (vit_*, deit_*), "
            "without windows, convolutions or rotary embeddings; try vit_base_patch16_224"
        )
    vit = as_vit(model)
    for where, part, wanted in _parts(vit):
        if type(part) is not wanted:
            raise WaveError(
                f"{name}.{where} is {type(part).__name__}; only timm's {wanted.__name__} "
                "is supported"
            )
    if vit.attn_pool is not None or vit.global_pool not in POOLINGS:
        raise WaveError(
            f"{name} has global_pool={vit.global_pool!r}; supported are {', '.join(POOLINGS)}"
        )
    if any(attention_of(block).gate is not None for block in blocks_of(vit)):
        raise WaveError(f"{name} has gated attention, which is not supported")
    return vit


def _parts(model: VisionTransformer) -> Iterator[tuple[str, nn.Module, type[nn.Module]]]:
    """Every part of a model that must be of one class: where it is, the part, and the class."""
    yield "patch_embed", model.get_submodule("patch_embed"), PatchEmbed
    for i, block in enumerate(blocks_of(model)):
        yield f"blocks.{i}", block, Block
        yield f"blocks.{i}.attn", block.attn, Attention
        yield f"blocks.{i}.mlp", block.mlp, Mlp


def head_dim_of(model: nn.Module) -> int:
    """Return the channels of one attention head."""
    return attention_of(blocks_of(model)[0]).head_dim


def shape_of(model: nn.Module) -> Shape:
    """Return the lengths of the axes of a plain or templated model."""
    block = blocks_of(model)[0]
    attention = attention_of(block)
    return Shape(
        embed=as_vit(model).embed_dim,
        heads=attention.num_heads,
        head_dim=attention.head_dim,
        hidden=mlp_of(block).fc1.out_features,
    )


def eps_of(model: nn.Module) -> float | None:
    """The one ``eps`` of all its LayerNorms, ``None`` where they differ or there are none."""
    found = {m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)}
    return found.pop() if len(found) == 1 else None


def set_eps(model: nn.Module, eps: float) -> None:
    """Give all LayerNorms one ``eps``, which no argument of timm can say as text."""
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = eps


def images_of(model: nn.Module) -> tuple[tuple[int, int], tuple[int, int], int]:
    """Return (height, width) of the images, (height, width) of the patches, and channels.

    Height and width of the images are 0 in a model that reads images of any size.
    """
    patches = patch_embedding_of(model)
    return patches.img_size or (0, 0), patches.patch_size, patches.proj.in_channels


def linears(model: nn.Module) -> Iterator[tuple[int, Kind, nn.Module, str]]:
    """Yield the four linear layers of every block: index, kind, holding module, name there."""
    for i, block in enumerate(blocks_of(model)):
        for kind in KINDS:
            holder, name = PATHS[kind]
            yield i, kind, getattr(block, holder), name


def templated(model: nn.Module, bank: TemplateBank) -> VisionTransformer:
    """Turn the four matrices of every block into :class:`TemplatedLinear` layers, in place.

    Args:
        model: A plain timm model.
        bank: The templates, registered as ``model.templates``.

    Returns:
        ``model``, with random scalers and its own biases.

    Raises:
        WaveError: The model or its shape is not supported; the model is then unchanged.
    """
    vit = check_supported(model)
    shape = shape_of(vit)
    bank.spec.check(shape)
    layers: list[tuple[nn.Module, str, TemplatedLinear]] = []
    for _, kind, holder, name in linears(vit):
        dense: nn.Linear = getattr(holder, name)
        bias = bias_of(dense)
        device = str(dense.weight.device)
        layer = TemplatedLinear(bank, kind, shape=shape, bias=bias is not None, device=device)
        layer.bias = bias
        layers.append((holder, name, layer))
    for holder, name, layer in layers:
        setattr(holder, name, layer)
    vit.register_module(BANK, bank)
    return vit


def bank_of(model: nn.Module) -> TemplateBank:
    """Return the templates of a templated model."""
    bank = model.get_submodule(BANK)
    if not isinstance(bank, TemplateBank):
        raise TypeError(f"{type(model).__name__}.{BANK} is {type(bank).__name__}")
    return bank


@torch.no_grad()
def materialise(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of the plain timm model that computes what a templated one computes."""
    state = {k: v for k, v in own_state(model).items() if not k.endswith(".scalers")}
    for i, kind, holder, name in linears(model):
        layer: TemplatedLinear = getattr(holder, name)
        state[f"blocks.{i}.{PATHS[kind][0]}.{name}.weight"] = layer.weight
    return {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}


def own_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a templated model's live parameters but the templates.

    Scalers, biases, norms, embeddings and classifier: what each size has for itself.
    """
    return {k: v for k, v in model.named_parameters() if not k.startswith(f"{BANK}.")}


def axes_of(name: str) -> tuple[Axis | None, ...]:
    """Return which axis of the model each dimension of a tensor lies along.

    Args:
        name: timm's name of the tensor in a plain or templated state; not one of scalers.

    Returns:
        One entry per dimension; None where the length does not depend on width or heads.

    >>> axes_of("blocks.0.attn.proj.weight")
    ('embed', 'attn')
    """
    module, _, leaf = name.rpartition(".")
    short = module.rsplit(".", 1)[-1]
    weight = leaf == "weight"
    if name in TOKENS:
        return (None, None, "embed")
    if short in HEADS:
        return (None, "embed") if weight else (None,)
    if short == "qkv":
        return ("qkv", "embed") if weight else ("qkv",)
    if short == "fc1":
        return ("hidden", "embed") if weight else ("hidden",)
    if module.endswith("mlp.norm"):
        return ("hidden",)
    if module.endswith("attn.norm"):
        return ("attn",)
    if short in ("q_norm", "k_norm"):
        return ("head",)
    if module == "patch_embed.proj" and weight:
        return ("embed", None, None, None)
    if short == "proj" and weight:
        return ("embed", "attn")
    if short == "fc2" and weight:
        return ("embed", "hidden")
    return ("embed",)
