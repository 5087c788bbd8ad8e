"""Templates and a target size to a model: templated for stage 2, plain timm as the product."""

from typing import Literal, get_args

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from .bank import TemplateBank
from .errors import WaveError
from .family import size_of
from .resampling import Resampling, resample
from .spec import TargetSpec
from .storage import Templates
from .vit import BANK, materialise, templated

Scalers = Literal["resample", "random"]


def target_model(
    templates: Templates,
    target: TargetSpec,
    *,
    scalers: Scalers = "resample",
    options: Resampling | None = None,
    seed: int = 0,
) -> VisionTransformer:
    """A templated model of ``target`` with frozen templates, ready for stage 2.

    ``scalers="resample"`` reads scalers and small tensors off the auxiliary model by ``options`` (default: those that
    stage 1 used); ``"random"`` draws both anew, as in the paper. Raises :class:`WaveError` for an impossible size.
    """
    if scalers not in get_args(Scalers):
        raise WaveError(f"scalers={scalers!r} is unknown; use one of {', '.join(get_args(Scalers))}")
    full = templates.family.resolve(target)
    templates.spec.check(templates.spec.shape(full))
    with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
        torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
        model = templated(templates.family.create(full), TemplateBank(templates.spec, templates.bank))
    if scalers == "resample":
        state = resample(templates.state, templates.size, full, templates.spec, options or templates.options)
        model.load_state_dict(state, strict=False)
    model.get_submodule(BANK).requires_grad_(False)
    return model


def plain_model(templates: Templates, model: nn.Module) -> VisionTransformer:
    """The plain timm model that computes what the templated ``model`` computes: the product, free of our code."""
    plain = templates.family.create(size_of(model))
    plain.load_state_dict(materialise(model))
    return plain


def initialise(templates: Templates, target: TargetSpec, options: Resampling | None = None) -> VisionTransformer:
    """A plain timm model of any size with no training and no data: resample, then materialise.

    >>> model = initialise(Templates.load("runs/digits/templates"), TargetSpec(96, 6))  # doctest: +SKIP
    """
    return plain_model(templates, target_model(templates, target, options=options))
