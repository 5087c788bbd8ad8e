"""timm's names for the tensors of other libraries' ViTs: by timm's own readers, else by maps of ours."""

import re
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any, cast

import torch
from timm.models import model_entrypoint
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from pipelines.ancestors.weight_file import State
from wave.errors import WaveError

_OF_TORCHVISION = (
    (r"class_token", "cls_token"),
    (r"conv_proj\.", "patch_embed.proj."),
    (r"encoder\.pos_embedding", "pos_embed"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"encoder\.ln\.", "norm."),
    (r"heads\.(head\.)?", "head."),
    (r"(blocks\.\d+)\.ln_", r"\1.norm"),
    (r"(blocks\.\d+)\.self_attention\.in_proj_", r"\1.attn.qkv."),
    (r"(blocks\.\d+)\.self_attention\.out_proj\.", r"\1.attn.proj."),
    (r"(blocks\.\d+)\.mlp\.(0|linear_1)\.", r"\1.mlp.fc1."),
    (r"(blocks\.\d+)\.mlp\.(3|linear_2)\.", r"\1.mlp.fc2."),
)
_OF_TRANSFORMERS = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.distillation_token", "dist_token"),
    (r"embeddings\.register_tokens", "register_tokens"),
    (r"embeddings\.mask_token", "mask_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"(encoder\.layer|layers)\.(\d+)\.", r"blocks.\2."),  # as in files, and as in version 5's memory
    (r"layernorm\.", "norm."),
    (r"(cls_)?classifier\.", "head."),
    (r"distillation_classifier\.", "head_dist."),
    (r"(blocks\.\d+)\.attention\.attention\.", r"\1.attn."),
    (r"(blocks\.\d+)\.attention\.q_proj\.", r"\1.attn.query."),
    (r"(blocks\.\d+)\.attention\.k_proj\.", r"\1.attn.key."),
    (r"(blocks\.\d+)\.attention\.v_proj\.", r"\1.attn.value."),
    (r"(blocks\.\d+)\.attention\.(output\.dense|o_proj)\.", r"\1.attn.proj."),
    (r"(blocks\.\d+)\.layernorm_before\.", r"\1.norm1."),
    (r"(blocks\.\d+)\.layernorm_after\.", r"\1.norm2."),
    (r"(blocks\.\d+)\.intermediate\.dense\.", r"\1.mlp.fc1."),
    (r"(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
    (r"(blocks\.\d+)\.layer_scale(\d)\.lambda1", r"\1.ls\2.gamma"),
)
_PARTS = ("query", "key", "value")
DROPPED = ("mask_token", "pooler.", "decoder_", "decoder.", "pre_logits.")
"""Parts of a training or of a model around the ViT that classify nothing."""


def timm_names(state: State, usual: VisionTransformer, architecture: str) -> tuple[State, list[str]]:
    """The tensors under timm's names, those that timm resamples as they are, and what was dropped with a word."""
    notes: list[str] = []
    if "conv_proj.weight" in state:
        state = _mapped(state, _OF_TORCHVISION)
    if "embeddings.patch_embeddings.projection.weight" in state:
        state = _fused(_mapped(state, _OF_TRANSFORMERS))
    if "visual.class_embedding" in state and "clip" in architecture and "quickgelu" not in architecture:
        notes.append(f"{architecture} has GELU; OpenAI's own CLIP was trained with QuickGELU: name a *_quickgelu_* one")
    dropped = sorted(name for name in state if name.startswith(DROPPED))
    if dropped:
        notes.append(f"left out, no part of the classifier: {', '.join(dropped[:4])}")
    kept = {name: tensor for name, tensor in state.items() if name not in dropped}
    if "mask_token" in state or "register_tokens" in state:
        kept["mask_token"] = torch.empty(0)  # by which timm knows DINOv2; it drops it
    if "dist_token" in kept and "head_dist.weight" not in kept:
        kept["reg_token"] = kept.pop("dist_token")  # one more token that no classifier reads
    head, token = kept.get("head.weight"), kept.get("cls_token")
    if head is not None and token is not None and head.shape[1:] == (2 * token.shape[-1],):
        kept = {name: tensor for name, tensor in kept.items() if not name.startswith("head.")}
        notes.append("its classifier reads the class token and the mean patch together, as no model of timm: left out")
    return filtered(kept, _stand_in(kept, usual), architecture), notes


def filtered(state: State, model: Any, architecture: str) -> State:
    """What timm's reader of the architecture makes of a state dict for ``model``, resampled where that is larger."""
    module = import_module(model_entrypoint(architecture).__module__)
    reader = getattr(module, "checkpoint_filter_fn", checkpoint_filter_fn)
    if any("gamma_" in name for name in state):  # DeiT III's, as timm's deit.py reads them
        reader = partial(reader, adapt_layer_scale=True)
    return cast(State, reader(dict(state), model))


def _stand_in(state: State, usual: VisionTransformer) -> Any:
    """What timm's reader asks of a model, for one that has the file's own patches and position embeddings."""
    weight = next(
        (t for name, t in state.items() if name.endswith(("patch_embed.proj.weight", "conv1.weight")) and t.ndim == 4),
        usual.patch_embed.proj.weight,
    )
    patches = SimpleNamespace(proj=SimpleNamespace(weight=weight))
    return SimpleNamespace(patch_embed=patches, pos_embed=None, head=nn.Linear(1, 1, device="meta"))


def _mapped(state: State, rules: Sequence[tuple[str, str]]) -> State:
    mapped: State = {}
    for name, tensor in state.items():
        new = name
        for pattern, replacement in rules:
            new = re.sub(rf"^{pattern}", replacement, new)
        if new in mapped:
            raise WaveError(f"tensors {name} and another have one name in timm, {new}")
        mapped[new] = tensor
    return mapped


def _fused(state: State) -> State:
    """transformers' three projections as timm's one."""
    fused: State = {}
    for name, tensor in state.items():
        found = re.fullmatch(r"(blocks\.\d+\.attn\.)(query|key|value)\.(weight|bias)", name)
        if not found:
            fused[name] = tensor
        elif found[2] == "query":
            parts = [state.get(f"{found[1]}{part}.{found[3]}") for part in _PARTS]
            if any(part is None for part in parts):
                raise WaveError(f"tensor {name} is there without those of key and value")
            fused[f"{found[1]}qkv.{found[3]}"] = torch.cat(cast(list[Tensor], parts))
    return fused
