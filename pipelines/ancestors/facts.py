"""What tensors tell of the model that they belong to, and what contradicts them."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from wave.errors import WaveError
from wave.family import ratio
from wave.vit import shape_of

Facts = dict[str, Any]
"""Arguments of a timm model, those alone that its tensors tell."""
_SIZES = ("embed_dim", "depth", "num_heads", "mlp_ratio", "patch_size", "in_chans", "num_classes")


def facts_of(state: Mapping[str, Tensor], no_embed_class: bool | None = None) -> Facts:
    """Arguments that give a model of these tensors (timm's names): width, depth, patches, channels, classes, images,
    and heads where queries are normalised. ``no_embed_class`` settles what position embeddings alone leave open.

    Nothing is said of a part whose tensors have another form than a ViT's: what is missing is named later.
    """
    facts: Facts = {}
    weight = _shape(state, "patch_embed.proj.weight", 4)
    if not weight:
        return facts
    width, facts["in_chans"], height, _ = weight
    facts |= {"embed_dim": width, "patch_size": _side(weight[2:])}
    facts["depth"] = len({name.split(".")[1] for name in state if re.match(r"blocks\.\d+\.", name)})
    if hidden := _shape(state, "blocks.0.mlp.fc1.weight", 2):
        facts["mlp_ratio"] = ratio(hidden[0], width)
    head = _shape(state, "head.weight", 2)
    facts["num_classes"] = head[0] if head else 0
    if norm := _shape(state, "blocks.0.attn.q_norm.weight", 1):
        facts["num_heads"] = width // norm[0]
    registers = _shape(state, "reg_token", 3)
    facts["reg_tokens"] = registers[1] if registers else 0
    facts["class_token"] = "cls_token" in state
    facts["qkv_bias"] = "blocks.0.attn.qkv.bias" in state
    facts["qk_norm"] = "blocks.0.attn.q_norm.weight" in state
    facts["pre_norm"] = "norm_pre.weight" in state
    facts["layer scale"] = "blocks.0.ls1.gamma" in state
    facts["norm after pooling"] = "fc_norm.weight" in state
    prefix = int(facts["class_token"]) + facts["reg_tokens"] + int("dist_token" in state)
    if places := _shape(state, "pos_embed", 3):
        whole, patches = _root(places[1]), _root(places[1] - prefix)
        without = bool(prefix) and (patches is None or (whole is not None and bool(no_embed_class)))
        grid = whole if without else patches
        if grid:
            facts |= {"img_size": grid * height, "no_embed_class": without}
    return facts


def facts_of_model(model: VisionTransformer) -> Facts:
    """The same of a model that is there, its heads too."""
    return {**facts_of(model.state_dict(), model.no_embed_class), "num_heads": shape_of(model).heads}


def arguments_for(
    path: Path, told: Facts, usual: Facts, given: Mapping[str, Any], where: str
) -> tuple[dict[str, Any], list[str]]:
    """The arguments of ``timm.create_model`` for a file's tensors, and what a reader is told.

    ``told`` by the tensors, ``usual`` for the architecture, ``given`` by a person or a description, which
    ``where`` names. Raises :class:`WaveError` that names every contradiction.
    """
    wrong = [name for name in told if name in given and name != "img_size" and not _agrees(name, told, given)]
    if wrong:
        has = " and ".join(f"{name}={_text(told[name])}" for name in wrong)
        says = " and ".join(f"{name}={given[name]}" for name in wrong)
        raise WaveError(f"{path}: holds a model of {has}; {where} says {says}: leave that out, or give another file")
    notes: list[str] = []
    arguments = {name: value for name, value in told.items() if name in _SIZES or usual.get(name) != value}
    scale, pooled = arguments.pop("layer scale", None), arguments.pop("norm after pooling", None)
    if scale is not None and "init_values" not in given:
        arguments["init_values"] = 1e-5 if scale else None
    if pooled is not None and not {"global_pool", "fc_norm"} & given.keys():
        arguments["global_pool"] = "avg" if pooled else "token"
    if told and not told["depth"]:
        raise WaveError(f"{path}: holds no layers under the names that timm gives them, blocks.0.norm1.weight and on")
    if "num_heads" not in {**told, **given} and told.get("embed_dim", 0) != usual.get("embed_dim", 0):
        raise WaveError(
            f"{path}: holds a model of embed_dim={told['embed_dim']}, and no tensor tells its heads; set num_heads in "
            f"ancestor.model_args (the architecture has {usual['embed_dim']} channels in {usual['num_heads']} heads)"
        )
    size, asked = told.get("img_size"), given.get("img_size")
    if asked is not None and size is not None and _side(asked) != size:
        notes.append(f"{path.name}: positions of {size}x{size} images are resampled, as timm does, for {asked}")
    return {**arguments, **given}, notes


def _text(value: Any) -> str:
    return f"{value:g}" if type(value) is float else str(value)


def _agrees(name: str, told: Facts, given: Mapping[str, Any]) -> bool:
    value = given[name]
    if name == "mlp_ratio" and isinstance(value, int | float):
        return int(told["embed_dim"] * value) == int(told["embed_dim"] * told[name])
    return _side(value) == told[name]


def _side(value: Any) -> Any:
    """One number for a square."""
    pair = tuple(value) if isinstance(value, list | tuple) else ()
    return pair[0] if len(pair) == 2 and pair[0] == pair[1] else pair or value


def _shape(state: Mapping[str, Tensor], name: str, ndim: int) -> tuple[int, ...]:
    """A tensor's shape, () where there is none of so many dimensions."""
    tensor = state.get(name)
    shape = tuple(tensor.shape) if tensor is not None else ()
    return shape if len(shape) == ndim and min(shape) > 0 else ()


def _root(number: int) -> int | None:
    root = math.isqrt(max(0, number))
    return root if root and root * root == number else None
