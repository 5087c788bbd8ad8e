"""The only file that knows timm's module names: families of plain ViTs, templated() and materialise()."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import cast

import timm
import torch
from timm.layers import Mlp, PatchEmbed
from timm.layers.attention import Attention
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from .bank import TemplateBank
from .errors import WaveError
from .linear import TemplatedLinear
from .spec import KINDS, Axis, Kind, TargetSpec, TemplateSpec

PATHS: Mapping[Kind, tuple[str, str]] = {
    "qkv": ("attn", "qkv"),
    "proj": ("attn", "proj"),
    "fc1": ("mlp", "fc1"),
    "fc2": ("mlp", "fc2"),
}
HEADS = ("head", "head_dist")
BANK = "templates"
SIZE_ARGUMENTS = ("embed_dim", "depth", "num_heads", "num_classes", "img_size", "patch_size", "device", "dtype")


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
    parts: list[tuple[str, nn.Module | None, type[nn.Module]]] = [("patch_embed", vit.patch_embed, PatchEmbed)]
    for i, block in enumerate(vit.blocks):
        parts.append((f"blocks.{i}", block, Block))
        if type(block) is Block:
            parts += [(f"blocks.{i}.attn", block.attn, Attention), (f"blocks.{i}.mlp", block.mlp, Mlp)]
    for where, part, wanted in parts:
        if type(part) is not wanted:
            raise WaveError(f"{name}.{where} is {type(part).__name__}; only timm's {wanted.__name__} is supported")
    if vit.attn_pool is not None:
        raise WaveError(f"{name} pools by attention ({vit.global_pool}); use token, avg, max or avgmax pooling")
    if any(block.attn.gate is not None for block in vit.blocks):
        raise WaveError(f"{name} has gated attention, which is not supported")
    return vit


@dataclass(frozen=True)
class Family:
    """All sizes of one architecture: a timm name, its extra arguments, and the full size of the ancestor."""

    architecture: str
    model_args: Mapping[str, object]
    size: TargetSpec
    head_dim: int
    mlp_ratio: float
    in_chans: int = 3

    @classmethod
    def of(cls, model: nn.Module) -> "Family":
        """The family of a model that timm created; raises :class:`WaveError` if it is not supported."""
        vit = check_supported(model)
        config = vit.pretrained_cfg or {}
        architecture = config.get("architecture")
        if not isinstance(architecture, str) or not timm.is_model(architecture):
            raise WaveError(f"the model does not say which timm architecture it is (pretrained_cfg: {architecture!r})")
        given = cast(dict[str, object], getattr(vit, "_model_args", {}))
        height, width = vit.patch_embed.img_size or (0, 0)
        patch = vit.patch_embed.patch_size
        if height != width or patch[0] != patch[1]:
            raise WaveError(f"images of {height}x{width} and patches of {patch[0]}x{patch[1]}: both must be square")
        return cls(
            architecture=architecture,
            model_args={k: v for k, v in given.items() if k not in (*SIZE_ARGUMENTS, "in_chans", "mlp_ratio")},
            size=size_of(vit),
            head_dim=vit.embed_dim // vit.blocks[0].attn.num_heads,
            mlp_ratio=vit.blocks[0].mlp.fc1.out_features / vit.embed_dim,
            in_chans=vit.patch_embed.proj.in_channels,
        )

    def resolve(self, target: TargetSpec) -> TargetSpec:
        """The target with the ancestor's value in place of every ``None``; raises :class:`WaveError` if the width is
        not a whole number of heads or the image not a whole number of patches."""
        full = replace(
            target,
            **{k: getattr(self.size, k) for k in ("num_classes", "img_size", "patch_size") if getattr(target, k) is None},
        )
        if full.embed_dim % self.head_dim:
            low = max(full.embed_dim // self.head_dim, 1) * self.head_dim
            raise WaveError(
                f"embed_dim={full.embed_dim} is not a multiple of head_dim={self.head_dim}; nearest valid widths are "
                f"{low} and {low + self.head_dim}"
            )
        image, patch = cast(int, full.img_size), cast(int, full.patch_size)
        if image % patch:
            raise WaveError(f"img_size={image} is not a multiple of patch_size={patch}; try {image // patch * patch or patch}")
        return full

    def model_arguments(self, target: TargetSpec) -> dict[str, object]:
        """Keyword arguments of ``timm.create_model`` for a size; JSON types unless the ancestor's were not."""
        full = self.resolve(target)
        return {
            **self.model_args,
            "embed_dim": full.embed_dim,
            "depth": full.depth,
            "num_heads": full.embed_dim // self.head_dim,
            "mlp_ratio": self.mlp_ratio,
            "in_chans": self.in_chans,
            "num_classes": full.num_classes,
            "img_size": full.img_size,
            "patch_size": full.patch_size,
        }

    def create(self, target: TargetSpec, device: str | None = None) -> VisionTransformer:
        """A plain timm model of that size with timm's random initialisation."""
        model = timm.create_model(self.architecture, pretrained=False, **self.model_arguments(target), device=device)
        return check_supported(model)

    def to_json(self) -> dict[str, object]:
        """Plain JSON types; :meth:`from_json` is the inverse."""
        size = {k: getattr(self.size, k) for k in ("embed_dim", "depth", "num_classes", "img_size", "patch_size")}
        return dict(
            architecture=self.architecture,
            model_args=dict(self.model_args),
            size=size,
            head_dim=self.head_dim,
            mlp_ratio=self.mlp_ratio,
            in_chans=self.in_chans,
        )

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> "Family":
        """Raises :class:`WaveError` when a field is missing or of a wrong type, or timm has no such architecture."""
        try:
            family = cls(**{**data, "size": TargetSpec(**cast(dict[str, int], data["size"]))})  # type: ignore[arg-type]
        except (KeyError, TypeError) as error:
            raise WaveError(f"model family is not valid: {error}") from None
        if not isinstance(family.architecture, str) or not timm.is_model(family.architecture):
            raise WaveError(f"timm has no architecture {family.architecture!r}")
        return family


def size_of(model: nn.Module) -> TargetSpec:
    """The full size of a plain or templated model with square images and patches."""
    vit = cast(VisionTransformer, model)
    height, patch = (vit.patch_embed.img_size or (0,))[0], vit.patch_embed.patch_size[0]
    return TargetSpec(vit.embed_dim, len(vit.blocks), vit.num_classes, height, patch)


def linears(model: nn.Module) -> Iterator[tuple[int, Kind, nn.Module, str]]:
    """The four linear layers of every block: layer index, kind, the module that holds it, and its name there."""
    for i, block in enumerate(cast(VisionTransformer, model).blocks):
        for kind in KINDS:
            holder, name = PATHS[kind]
            yield i, kind, getattr(block, holder), name


def templated(model: nn.Module, bank: TemplateBank) -> VisionTransformer:
    """``model``, changed in place: its four matrices a block become :class:`TemplatedLinear` layers of ``bank``.

    The bank is registered as ``model.templates``. Scalers start random. Raises :class:`WaveError` when the model or
    its width is not supported; the model is then unchanged.
    """
    vit = check_supported(model)
    head_dim = vit.embed_dim // vit.blocks[0].attn.num_heads
    if head_dim != bank.spec.head_dim:
        raise WaveError(f"the model's head_dim is {head_dim}; these templates were made for {bank.spec.head_dim}")
    bank.spec.check(vit.embed_dim)
    for _, kind, holder, name in list(linears(vit)):
        dense = cast(nn.Linear, getattr(holder, name))
        layer = TemplatedLinear(bank, kind, vit.embed_dim, dense.bias is not None, str(dense.weight.device))
        if layer.out_features != dense.out_features:
            raise WaveError(f"mlp_ratio of the model gives {dense.out_features} rows; the templates' {layer.out_features}")
        if layer.bias is not None:
            layer.bias = dense.bias
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
    """Which axes of a tensor of a plain or templated state grow with the width, by timm's name; scalers excluded."""
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
        return (None,)
    if module == "patch_embed.proj" and leaf == "weight":
        return ("embed", None, None, None)
    if leaf == "weight" and short in ("proj", "fc2"):
        return ("embed", "embed" if short == "proj" else "hidden")
    return ("embed",)


def num_prefix_tokens(model: nn.Module) -> int:
    """Leading entries of the position embedding that are not patches."""
    vit = cast(VisionTransformer, model)
    return 0 if vit.no_embed_class else vit.num_prefix_tokens
