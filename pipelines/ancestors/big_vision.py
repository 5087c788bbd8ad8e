"""Checkpoints of JAX and big_vision, NumPy archives: timm reads the weights, their shapes tell the model."""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer

from pipelines.ancestors.facts import Facts, arguments_for, facts_of_model
from pipelines.ancestors.messages import first_line
from pipelines.ancestors.timm_models import create
from pipelines.config.timm_arguments import REFUSALS
from wave.errors import WaveError
from wave.family import ratio
from wave.tensor_file import UNREADABLE, check_unpacked, weights

_PREFIXES = ("", "opt/target/", "params/", "params/img/")
"""What timm's reader knows before the names."""


def is_big_vision(path: Path) -> bool:
    return path.suffix == ".npz"


@torch.no_grad()
def read_big_vision(path: Path, architecture: str, given: Mapping[str, Any], where: str) -> VisionTransformer:
    """The model of a ``.npz`` file. Raises :class:`WaveError` where timm cannot read it as a ViT."""
    told = _facts(path)
    usual = create(architecture, {}, where, "meta")
    arguments, _ = arguments_for(path, told, facts_of_model(usual), given, where)
    model = create(architecture, arguments, where)
    for parameter in model.parameters():
        parameter.fill_(torch.nan)  # what the file does not fill is found below
    try:
        model.load_pretrained(str(path))
    except (*REFUSALS, *UNREADABLE) as error:
        raise WaveError(f"{path}: timm cannot read it as {architecture} ({first_line(error)})") from None
    for name, tensor in model.state_dict().items():
        weights(path, name, tensor)
    return model


def _facts(path: Path) -> Facts:
    try:
        check_unpacked(path, "numpy.savez")
        with np.load(path, allow_pickle=False) as file:
            shapes = {name: tuple(file[name].shape) for name in file.files}
    except FileNotFoundError:
        raise WaveError(f"{path}: no such file") from None
    except (*UNREADABLE, zipfile.BadZipFile) as error:
        if isinstance(error, WaveError):
            raise
        raise WaveError(f"{path}: not a NumPy archive of arrays ({first_line(error)})") from None
    prefix = next((p for p in _PREFIXES if f"{p}embedding/kernel" in shapes), None)
    if prefix is None or len(shapes[f"{prefix}embedding/kernel"]) != 4:
        raise WaveError(f"{path}: no ViT of JAX or big_vision: it has no array embedding/kernel of four dimensions")
    return _of_shapes({name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)})


def _of_shapes(shapes: Mapping[str, tuple[int, ...]]) -> Facts:
    side, _, channels, width = shapes["embedding/kernel"]
    facts: Facts = {"embed_dim": width, "patch_size": side, "in_chans": channels}
    blocks = {m[1] for name in shapes if (m := re.match(r"Transformer/encoderblock_(\d+)/", name))}
    stacked = shapes.get("Transformer/encoderblock/LayerNorm_0/scale")
    facts["depth"] = stacked[0] if stacked else len(blocks)
    for name, shape in shapes.items():
        if name.endswith("query/kernel") and len(shape) >= 3 and "MAPHead" not in name:
            facts["num_heads"] = shape[-2]
        if name.endswith("Dense_0/kernel") and len(shape) >= 2 and "MAPHead" not in name:
            facts["mlp_ratio"] = ratio(shape[-1], width)
    head = shapes.get("head/kernel")
    facts |= {"num_classes": head[1] if head and len(head) == 2 else 0, "class_token": "cls" in shapes}
    places = shapes.get("pos_embedding") or shapes.get("Transformer/posembed_input/pos_embedding")
    grid = int(max(0, cast(tuple[int, ...], places)[1] - int(facts["class_token"])) ** 0.5) if places else 0
    if grid:
        facts["img_size"] = grid * side
    return facts
