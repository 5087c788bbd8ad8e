"""Arguments of a timm model: what is wrong with them in words, before timm is asked and after it has refused them."""

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

import timm
from timm.models.vision_transformer import VisionTransformer

from pipelines.config.sizes import MAX_CLASSES
from wave.vit import head_dim_of

_MOST = {"embed_dim": 16384, "depth": 1024, "num_heads": 1024, "patch_size": 8192, "img_size": 8192, "in_chans": 64}
_MOST |= {"num_classes": MAX_CLASSES}
_SQUARE = ("patch_size", "img_size")
_OF_TIMM = tuple(name for name in inspect.signature(timm.create_model).parameters if name != "kwargs")
_SWITCHES = [
    k for k, p in inspect.signature(VisionTransformer).parameters.items() if p.annotation in (bool, bool | None)
]
NO_CLASSIFIER = "templates are distilled with a classifier's outputs: give a model with num_classes of at least 1"

REFUSALS = (
    TypeError,
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    RuntimeError,
    AssertionError,
    ZeroDivisionError,
    OverflowError,
)
"""What timm and torch raise for arguments that make no model."""


def mistake(arguments: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first argument that no model can have, and why; ``None`` where all may be right."""
    for key, value in arguments.items():
        if key in _OF_TIMM:
            return key, " says how timm makes a model, not which; leave it out"
        limit = _MOST.get(key)
        sides = value if key in _SQUARE and isinstance(value, list | tuple) and len(value) == 2 else [value]
        if limit and value is not None and not all(type(side) is int and 1 <= side <= limit for side in sides):
            why = f"; {NO_CLASSIFIER}" if key == "num_classes" and value == 0 else ""
            return key, f"={value!r} should be a whole number from 1 to {limit}{why}"
        if key in _SWITCHES and value is not None and not isinstance(value, bool):
            return key, f"={value!r} should be true or false"
        rate = key.endswith("drop_rate") or key == "drop_path_rate"
        if rate and not (isinstance(value, int | float) and 0 <= value < 1):
            return key, f"={value!r} should be at least 0 and less than 1"
        if key == "mlp_ratio" and not (isinstance(value, int | float) and value > 0):
            return key, f"={value!r} should be a number greater than 0, for example 4.0"
    width, heads = arguments.get("embed_dim"), arguments.get("num_heads")
    return _heads(width, heads) if width and heads else None


def _heads(width: int, heads: int) -> tuple[str, str] | None:
    if width % heads == 0:
        return None
    nearest = min((n for n in range(1, width + 1) if width % n == 0), key=lambda n: abs(n - heads))
    return "num_heads", f"={heads} does not divide embed_dim={width}; nearest: {nearest}"


def refused(architecture: str, arguments: Mapping[str, Any], error: Exception) -> str:
    """Why timm, which raised ``error``, cannot make the model: the one argument without which it can, if there is one.

    timm's own text is told where it was written for a reader, as the text of an assertion is.
    """
    known = [name for name in inspect.signature(VisionTransformer).parameters if name not in ("device", "dtype")]
    for key in arguments:
        if "unexpected keyword argument" in str(error) and f"'{key}'" in str(error):
            near = (difflib.get_close_matches(key, known, 1, 0.5) or ["embed_dim"])[0]
            return f"{key} is no argument of timm's {architecture}; nearest: {near}"
    if isinstance(whole := _made(architecture, {}), VisionTransformer):
        width = arguments.get("embed_dim") or whole.embed_dim
        heads = arguments.get("num_heads") or whole.embed_dim // head_dim_of(whole)
        if found := _heads(width, heads):
            return "".join(found)
    alike = _made(architecture, arguments) is None  # without weights too: else it is the device that refuses
    for key, value in arguments.items() if alike else ():
        if _made(architecture, {k: v for k, v in arguments.items() if k != key}) is not None:
            text = str(error).strip() if isinstance(error, AssertionError) else ""
            reason = f" ({text.splitlines()[0][:200].rstrip('.')})" if text else ""
            return (
                f"timm cannot make {architecture} with {key}={value!r}{reason}; leave it out, or give what timm takes"
            )
    return f"timm cannot make {architecture} with {dict(arguments)}; leave out what this machine or the model lacks"


def least_bytes(architecture: str, arguments: Mapping[str, Any]) -> int:
    """Bytes of the matrices of a model's layers in float32, counted and not built: each layer takes milliseconds. 0
    where the arguments leave the layers as the architecture has them, or where it has none that are known here."""
    if not {"depth", "embed_dim", "mlp_ratio"} & arguments.keys():
        return 0
    if not isinstance(whole := _made(architecture, {}), VisionTransformer):
        return 0
    own = {"depth": len(whole.blocks), "embed_dim": whole.embed_dim, "mlp_ratio": 4.0}
    depth, width, ratio = (own[key] if (value := arguments.get(key)) is None else value for key in own)
    return int(4 * depth * width**2 * (4 + 2 * ratio))


def _made(architecture: str, arguments: Mapping[str, Any]) -> Any:
    """The model without weights, ``None`` where timm refuses it."""
    try:
        return timm.create_model(architecture, pretrained=False, **{**arguments, "device": "meta"})
    except REFUSALS:
        return None
