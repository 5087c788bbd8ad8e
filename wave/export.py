"""Export: a plain timm model as a folder that timm and transformers read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from timm.models._hub import save_config_for_hf  # pyright: ignore[reportUnknownVariableType]
from torch import nn

from .files import replacing, save_tensors
from .vit import eps_of, images_of

TIMMS_EPS = 1e-6
"""LayerNorm's in most of timm's ViTs."""


def save_model(
    model: nn.Module,
    directory: str | Path,
    mean: Sequence[float],
    std: Sequence[float],
    classes: Sequence[str] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
) -> None:
    """Write a plain timm model as a folder that timm and transformers read.

    ``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads it. What timm's own checkpoint
    of the architecture claims (tag, licence, links) is not carried over.

    Args:
        model: A plain timm model.
        directory: The folder, written whole or not at all.
        mean: What images are normalised with: one value per channel, pixels between 0 and 1.
        std: The same.
        classes: Names of the classes, in the order of the logits.
        preprocessing: Further preprocessing in timm's terms, such as ``interpolation`` or
            ``crop_pct``, which is the whole image by default.

    Raises:
        WaveError: It cannot be written.
    """
    directory = Path(directory)
    (height, width), _, in_chans = images_of(model)
    data: dict[str, Any] = {
        "input_size": (in_chans, height, width),
        "mean": tuple(mean),
        "std": tuple(std),
        "crop_pct": 1.0,
    }
    data |= preprocessing or {}
    origin = {"tag": "wave", "license": "unknown", "origin_url": "", "paper_ids": ""}
    config: dict[str, Any] = {"pretrained_cfg": origin}
    if classes:
        config["label_names"] = list(classes)
    eps = eps_of(model)
    if eps not in (None, TIMMS_EPS):  # plain timm does not read it
        config["layer_norm_eps"] = eps
    tensors = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    name = "model.safetensors"
    with replacing(directory) as folder:
        save_tensors(tensors, folder / name, shown=directory / name)
        path = str(folder / "config.json")
        save_config_for_hf(model, path, model_config=config, data_config=data)
