"""Models that timm makes: plain ones of an architecture, and those whose weights timm has."""

import difflib
from collections.abc import Mapping
from typing import Any, cast

import httpx2
import timm
from huggingface_hub import constants, get_session
from timm.models.vision_transformer import VisionTransformer

from pipelines.ancestors.messages import first_line
from pipelines.config.machine import memory_bytes
from pipelines.config.timm_arguments import NO_CLASSIFIER, REFUSALS, least_bytes, mistake, refused
from wave.errors import WaveError
from wave.vit import check_supported

PROBE_SECONDS = 8.0
"""How long the model hub may take to answer; it would be asked again and again for a minute."""


def create(architecture: str, arguments: Mapping[str, Any], where: str, device: str | None = None) -> VisionTransformer:
    """A plain ViT of timm with random weights, also one without a classifier. ``where`` begins a message.

    Raises :class:`WaveError` for a name that timm does not know, arguments that it refuses, a model that templates
    cannot build, or one that is larger than this machine's memory.
    """
    if not timm.is_model(architecture):
        known = timm.list_models(["vit_*", "deit_*"])
        near = difflib.get_close_matches(architecture, known, 1, 0.5) or ["vit_tiny_patch16_224"]
        raise WaveError(f"{where}: timm has no architecture {architecture!r}; nearest: {near[0]}")
    if found := mistake({k: v for k, v in arguments.items() if (k, v) != ("num_classes", 0)}):
        raise WaveError(f"{where}: {''.join(found)}")
    try:
        _fits(architecture, least_bytes(architecture, arguments))
        model = check_supported(timm.create_model(architecture, pretrained=False, **{**arguments, "device": "meta"}))
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


def check_classifies(model: VisionTransformer, name: str) -> VisionTransformer:
    """``model`` itself; raises :class:`WaveError` for one without a classifier."""
    if model.num_classes < 1:
        raise WaveError(f"{name} has no classifier; {NO_CLASSIFIER}")
    return model


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
        architecture = name.partition(".")[0]
        plain = create(architecture, arguments, where, device="meta")
        if plain.num_classes < 1:
            raise WaveError(f"{where}: {architecture} has no classifier; {NO_CLASSIFIER}")
    silent = ""
    if not constants.HF_HUB_OFFLINE:
        try:
            get_session().head(constants.ENDPOINT, timeout=PROBE_SECONDS)  # with the hub's own certificates and proxies
        except (httpx2.HTTPError, OSError) as error:
            constants.HF_HUB_OFFLINE, silent = True, type(error).__name__
    try:
        model = check_classifies(check_supported(timm.create_model(name, pretrained=True, **arguments)), name)
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
