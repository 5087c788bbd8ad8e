"""Models as other programs keep them: timm names, timm directories, checkpoint files; read without executing them."""

import difflib
import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import httpx2
import timm
import torch
from huggingface_hub import constants, get_session
from timm.models.vision_transformer import VisionTransformer

from pipelines.config.machine import memory_bytes
from pipelines.config.timm_arguments import NO_CLASSIFIER, REFUSALS, least_bytes, mistake, refused
from wave.errors import WaveError
from wave.json_file import JsonError, read_json
from wave.tensor_file import (
    UNREADABLE,
    check_dense,
    check_layers,
    check_shapes,
    read_safetensors,
    read_torch,
    shapes_in,
    weights,
)
from wave.vit import check_supported

PROBE_SECONDS = 8.0
"""How long the model hub may take to answer; it would be asked again and again for a minute."""


def create(architecture: str, arguments: dict[str, Any], where: str, device: str | None = None) -> VisionTransformer:
    """A plain ViT of timm with random weights. ``where`` begins a message.

    Raises :class:`WaveError` for a name that timm does not know, arguments that it refuses, a model that templates
    cannot build, or one that is larger than this machine's memory.
    """
    if not timm.is_model(architecture):
        known = timm.list_models(["vit_*", "deit_*"])
        near = difflib.get_close_matches(architecture, known, 1, 0.5) or ["vit_tiny_patch16_224"]
        raise WaveError(f"{where}: timm has no architecture {architecture!r}; nearest: {near[0]}")
    if found := mistake(arguments):
        raise WaveError(f"{where}: {''.join(found)}")
    try:
        _fits(architecture, least_bytes(architecture, arguments))
        model = check_supported(timm.create_model(architecture, pretrained=False, **{**arguments, "device": "meta"}))
        _classifies(model, architecture)
        _fits(architecture, 4 * sum(p.numel() for p in model.parameters()))
        if device == "meta":
            return model
        return check_supported(timm.create_model(architecture, pretrained=False, **arguments))
    except WaveError as error:
        raise WaveError(f"{where}: {error}") from None
    except REFUSALS as error:
        _refuse_kind(architecture, where)
        raise WaveError(f"{where}: {refused(architecture, arguments, error)}") from None


def _fits(architecture: str, need: int) -> None:
    if need > (have := memory_bytes()):
        raise WaveError(f"{architecture} takes {need / 1e9:.0f} GB, this machine has {have / 1e9:.0f}; make it smaller")


def _classifies(model: VisionTransformer, name: str) -> None:
    if model.num_classes < 1:
        raise WaveError(f"{name} has no classifier; {NO_CLASSIFIER}")


def _refuse_kind(architecture: str, where: str) -> None:
    """Raise :class:`WaveError` where timm's own model of that name, whatever the arguments, is one of another kind."""
    try:
        check_supported(timm.create_model(architecture, pretrained=False, device="meta"))
    except WaveError as error:
        raise WaveError(f"{where}: {error}") from None
    except REFUSALS:  # the arguments are told then
        return


def pretrained(name: str, arguments: dict[str, Any], where: str) -> VisionTransformer:
    """A timm model with the weights that timm has for it, from the hub or, when that does not answer, from its cache.

    Raises :class:`WaveError` within seconds, also without a network.
    """
    if ":" not in name:  # hf-hub:OWNER/MODEL and the like are looked up by timm
        create(name.partition(".")[0], arguments, where, device="meta")
    silent = ""
    if not constants.HF_HUB_OFFLINE:
        try:
            get_session().head(constants.ENDPOINT, timeout=PROBE_SECONDS)  # with the hub's own certificates and proxies
        except (httpx2.HTTPError, OSError) as error:
            constants.HF_HUB_OFFLINE, silent = True, type(error).__name__
    try:
        model = check_supported(timm.create_model(name, pretrained=True, **arguments))
        _classifies(model, name)
        classes = cast(dict[str, Any], model.pretrained_cfg).get("num_classes", model.num_classes)
        if classes != model.num_classes:
            raise WaveError(
                f"the weights have {classes} classes, num_classes={model.num_classes} would draw a random head; "
                "fine-tune it first and give it as local-dir:PATH or checkpoint:PATH"
            )
        return model
    except WaveError as error:
        raise WaveError(f"{where}: {error}") from None
    except (*REFUSALS, OSError) as error:
        why = first_line(error)
        if constants.HF_HUB_OFFLINE:
            asked = f"does not answer ({silent})" if silent else "is not asked, because HF_HUB_OFFLINE is set,"
            why = f"the model hub {constants.ENDPOINT} {asked} and its cache on this machine lacks the weights"
        raise WaveError(f"{where}: {why}; or give the weights as checkpoint:PATH or local-dir:PATH") from None


def load_directory(directory: Path) -> tuple[VisionTransformer, tuple[float, ...], tuple[float, ...]]:
    """A timm directory's model, mean and std; safetensors only. Raises :class:`WaveError` naming the file."""
    path = Path(directory) / "config.json"
    try:
        config: dict[str, Any] = read_json(path)
        name, args, preprocessing = (
            str(config["architecture"]),
            config.get("model_args") or {},
            config["pretrained_cfg"],
        )
        mean, std = (tuple(float(v) for v in preprocessing[key]) for key in ("mean", "std"))
        if len(mean) != len(std) or not mean or not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
            raise ValueError(f"mean={list(mean)} and std={list(std)} should be a number a channel each, std above 0")
        args = {**args, "num_classes": int(config.get("num_classes", 1000))}
    except OSError as error:
        raise WaveError(f"{path}: {error.strerror}; a timm directory holds config.json and model.safetensors") from None
    except JsonError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise WaveError(f"{path}: not a timm configuration ({first_line(error)})") from None
    weights_file = Path(directory) / "model.safetensors"
    _check_described(weights_file, args)
    model = create(name, args, str(path))
    load_checkpoint(model, weights_file, f"{path.name} beside it says otherwise")
    return model, mean, std


def _check_described(path: Path, arguments: Mapping[str, Any]) -> None:
    """A size that a configuration names is that of the weights beside it, before anything of that size is built."""
    depth, width = (value if type(value := arguments.get(k)) is int else None for k in ("depth", "embed_dim"))
    try:
        found = shapes_in(path)
    except UNREADABLE:
        return  # said better when the weights are read
    check_layers(path, found, "blocks.", depth, width)


def load_checkpoint(
    model: torch.nn.Module, path: Path, advice: str = "set ancestor.model_args to the checkpoint's model"
) -> None:
    """Fill ``model`` from safetensors, or from a torch file read with ``weights_only``; never executes code.

    Raises :class:`WaveError` when the file is missing, is neither, or its tensors are not the model's, all finite.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    try:
        if path.suffix == ".safetensors":
            model.load_state_dict(read_safetensors(path, wanted, advice))
            return
        state = read_torch(path)
    except WaveError:
        raise
    except FileNotFoundError:
        raise WaveError(f"{path}: no such file") from None
    except pickle.UnpicklingError:
        text = (
            "refused, it holds more than tensors, which could run code, or is damaged; keep its tensors as safetensors"
        )
        raise WaveError(f"{path}: {text}") from None
    except UNREADABLE as error:
        raise WaveError(f"{path}: not a checkpoint this program reads ({first_line(error)}); use safetensors") from None
    for wrapper in ("state_dict", "model", "model_state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise WaveError(f"{path}: holds no state dict of tensors")
    for name in wanted.keys() & state.keys():
        check_dense(path, name, state[name])
    found = {str(name): tuple(tensor.shape) if name in wanted else () for name, tensor in state.items()}
    check_shapes(path, found, wanted, advice)
    model.load_state_dict({name: weights(path, name, tensor) for name, tensor in state.items()})


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
