"""Tiny members of every family that the library supports, with weights that hide nothing (no zeros,
no symmetry)."""

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from wave.family import Family
from wave.resampling import Resampling
from wave.template_spec import TemplateSpec

CLASSES, PIXELS = 5, 16
TINY = {
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "num_classes": CLASSES,
    "img_size": PIXELS,
    "patch_size": 8,
}
VIT = "vit_tiny_patch16_224"
FAMILIES: dict[str, tuple[str, dict[str, object]]] = {
    "class token": (VIT, {}),
    "no class token, avg": (VIT, {"class_token": False, "global_pool": "avg"}),
    "class token, avg": (VIT, {"global_pool": "avg"}),
    "max": (VIT, {"class_token": False, "global_pool": "max"}),
    "avgmax": (VIT, {"class_token": False, "global_pool": "avgmax"}),
    "registers": (VIT, {"reg_tokens": 2}),
    "registers without positions": (VIT, {"reg_tokens": 2, "no_embed_class": True}),
    "layer scale": (VIT, {"init_values": 0.1}),
    "distilled": ("deit_tiny_distilled_patch16_224", {}),
    "qk_norm": (VIT, {"qk_norm": True}),
    "no qkv bias": (VIT, {"qkv_bias": False}),
    "no proj bias": (VIT, {"proj_bias": False}),
    "pre_norm": (VIT, {"pre_norm": True}),
    "scaled norms": (VIT, {"scale_attn_norm": True, "scale_mlp_norm": True}),
    "no positions": (VIT, {"pos_embed": "none"}),
    "mlp_ratio 3": (VIT, {"mlp_ratio": 3.0}),
    "rmsnorm": (VIT, {"norm_layer": "rmsnorm"}),
    "dynamic image size": (VIT, {"dynamic_img_size": True}),
}


def randomise(model: nn.Module, seed: int = 0, std: float = 0.2) -> None:
    """Every parameter drawn normal, so that no zero bias or unit gain hides a mistake; templates
    and scalers too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator) * std
            gain = ".weight" in name and p.ndim == 1
            p.copy_(noise + 1 if gain else noise)


def tiny(family: str = "class token", seed: int = 0, **arguments: object) -> VisionTransformer:
    """An ancestor of 16 channels, 2 heads, 2 layers; 5 classes of 16 x 16 pixels."""
    architecture, extra = FAMILIES[family]
    model = timm.create_model(architecture, pretrained=False, **{**TINY, **extra, **arguments})
    randomise(model, seed)
    assert isinstance(model, VisionTransformer)
    return model.eval()


def spec_of(model: nn.Module, count: int = 6, **arguments: object) -> TemplateSpec:
    """``count`` templates of head_dim squares for every kind of a model."""
    family = Family.of(model)
    return TemplateSpec.uniform(family.head_dim, count, mlp_ratio=family.mlp_ratio, **arguments)


def images(batch: int = 3, channels: int = 3, pixels: int = PIXELS, seed: int = 1) -> Tensor:
    return torch.randn(
        batch, channels, pixels, pixels, generator=torch.Generator().manual_seed(seed)
    )


def exact(**arguments: object) -> Resampling:
    """The options that keep the function."""
    return Resampling(
        **{"width_scale": "copies", "symmetry": "none", "depth": "identity", **arguments}
    )
