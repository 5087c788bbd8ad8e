"""Folders with a model in them: what config.json says of it, timm's or transformers', and where its weights are."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from pipelines.ancestors.messages import first_line
from wave.errors import WaveError
from wave.json_file import JsonError, read_json

WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Names of a folder's weights; the first that is there is read, safetensors before pickles."""
_HOLDS = "a model's folder holds config.json and model.safetensors"
_WHERE, _ADVICE = "the description beside it", "config.json beside it says otherwise"
_HALF, _IMAGENET = (0.5, 0.5, 0.5), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Described(NamedTuple):
    """A model as something beside its weights describes it; ``where`` and ``advice`` are for messages."""

    architecture: str
    given: Mapping[str, Any]
    where: str
    advice: str
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    eps: float | None = None
    notes: tuple[str, ...] = ()


def weights_of(directory: Path) -> Path:
    """The file to read, the usual one where there is none."""
    return next((directory / name for name in WEIGHTS if (directory / name).is_file()), directory / WEIGHTS[0])


def described(directory: Path) -> Described:
    """The model of a folder. Raises :class:`WaveError` that names the file."""
    path = directory / "config.json"
    try:
        config = cast(dict[str, Any], read_json(path))
        if config.get("model_type") in _FAMILIES:
            return _of_transformers(directory, config)
        preprocessing = config.get("pretrained_cfg") or config  # one table in timm's older form
        wrapped = config.get("model_type") == "timm_wrapper" and "mean" not in preprocessing
        mean, std, notes = _statistics(directory) if wrapped else _checked(preprocessing, "mean", "std", ())
        arguments = dict(config.get("model_args") or {})
        classes = config.get("num_classes", preprocessing.get("num_classes"))
        if classes is not None:
            arguments["num_classes"] = int(classes)
        eps = config.get("layer_norm_eps")
        return Described(
            str(config["architecture"]), arguments, _WHERE, _ADVICE, mean, std,
            None if eps is None else _eps(eps), notes,
        )  # fmt: skip
    except OSError as error:
        raise WaveError(f"{path}: {error.strerror}; {_HOLDS}") from None
    except (JsonError, WaveError):
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise WaveError(f"{path}: not a timm or transformers configuration of a ViT ({first_line(error)})") from None


def _eps(value: Any) -> float:
    eps = float(value)
    if not 0 < eps < 1:
        raise ValueError(f"layer_norm_eps={value} should be between 0 and 1")
    return eps


_FAMILIES: Mapping[str, tuple[str, str]] = {
    "vit": ("vit_base_patch16_224", "ViTImageProcessor"),
    "deit": ("vit_base_patch16_224", "DeiTImageProcessor"),
    "dinov2": ("vit_base_patch14_dinov2", "BitImageProcessor"),
    "dinov2_with_registers": ("vit_base_patch14_reg4_dinov2", "BitImageProcessor"),
}
"""transformers' model types that are timm's VisionTransformer: the architecture whose arguments they change."""
_ACTIVATIONS = {
    "gelu": None,
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


def _of_transformers(directory: Path, config: dict[str, Any]) -> Described:
    """What transformers' configuration says that tensors do not: heads, the activation, LayerNorm's eps."""
    path, kind = directory / "config.json", str(config["model_type"])
    architecture = _FAMILIES[kind][0]
    teacher = any("WithTeacher" in str(name) for name in config.get("architectures") or ())
    if kind == "deit" and teacher:
        architecture = "deit_base_distilled_patch16_224"
    if config.get("use_swiglu_ffn"):
        raise WaveError(f"{path}: its MLPs are SwiGLU, which templates cannot build; give a ViT with plain MLPs")
    activation = config.get("hidden_act", "gelu")
    if activation not in _ACTIVATIONS:
        raise WaveError(f"{path}: hidden_act={activation!r} is not known here; known: {', '.join(_ACTIVATIONS)}")
    arguments: dict[str, Any] = {"num_heads": int(config.get("num_attention_heads", 12))}
    arguments |= {"embed_dim": int(config["hidden_size"]), "depth": int(config["num_hidden_layers"])}
    if _ACTIVATIONS[activation]:
        arguments["act_layer"] = _ACTIVATIONS[activation]
    eps = _eps(config.get("layer_norm_eps", 1e-6 if kind.startswith("dinov2") else 1e-12))
    return Described(architecture, arguments, _WHERE, _ADVICE, *_statistics(directory, kind)[:2], eps=eps,
                     notes=_statistics(directory, kind)[2])  # fmt: skip


def _statistics(directory: Path, kind: str = "vit") -> tuple[tuple[float, ...], tuple[float, ...], tuple[str, ...]]:
    """mean and std of preprocessor_config.json; where there is none those that transformers takes, with a word."""
    path = directory / "preprocessor_config.json"
    if path.is_file():
        return _checked(cast(dict[str, Any], read_json(path)), "image_mean", "image_std", ())
    mean, std = _IMAGENET if kind.startswith("dinov2") else (_HALF, _HALF)
    note = f"no preprocessor_config.json in {directory}: mean {list(mean)} and std {list(std)} are assumed; "
    return mean, std, (note + "give ancestor.mean and ancestor.std if the model was trained with others",)


def _checked(
    table: Mapping[str, Any], first: str, second: str, notes: tuple[str, ...]
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[str, ...]]:
    mean, std = (tuple(float(v) for v in table[key]) for key in (first, second))
    if len(mean) != len(std) or not mean or not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise ValueError(f"mean={list(mean)} and std={list(std)} should be a number a channel each, std above 0")
    return mean, std, notes
