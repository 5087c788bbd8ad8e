"""From templates and a size to a model: templated for stage 2, plain timm as the product."""

from typing import Literal, get_args

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from .bank import TemplateBank
from .errors import WaveError
from .family import size_of
from .resampling import Resampling, resample
from .seeding import exactly_seeded
from .spec import TargetSpec
from .storage import Templates
from .vit import BANK, materialise, templated

Scalers = Literal["resample", "random"]
"""Where the scalers of a size start."""


def target_model(
    templates: Templates,
    target: TargetSpec,
    *,
    scalers: Scalers = "resample",
    options: Resampling | None = None,
    seed: int = 0,
) -> VisionTransformer:
    """Create a templated model with frozen templates, ready for stage 2 (WAVE, section 3).

    Args:
        templates: What stage 1 made.
        target: The size.
        scalers: ``resample`` reads scalers and small tensors off the auxiliary model (ours);
            ``random`` draws both anew, as in the paper.
        options: How they are read off; by default as stage 1 sampled sizes.
        seed: For everything that is drawn.

    Raises:
        WaveError: The templates cannot build the size.
    """
    if scalers not in get_args(Scalers):
        choices = ", ".join(get_args(Scalers))
        raise WaveError(f"scalers={scalers!r} is unknown; use one of {choices}")
    spec = templates.spec
    full = templates.family.resolve(target)
    spec.check(spec.shape(full))
    with exactly_seeded(seed):
        plain = templates.family.create(full)
        model = templated(plain, TemplateBank(spec, templates.bank))
    if scalers == "resample":
        options = options or templates.options
        state = resample(templates.state, templates.size, target=full, spec=spec, options=options)
        model.load_state_dict(state, strict=False)
    model.get_submodule(BANK).requires_grad_(False)
    return model


def plain_model(templates: Templates, model: nn.Module) -> VisionTransformer:
    """Return the plain timm model that computes what a templated one computes: the product.

    Args:
        templates: Those that ``model`` was made from.
        model: A templated model, trained or not.
    """
    plain = templates.family.create(size_of(model))
    plain.load_state_dict(materialise(model))
    return plain


def initialise(
    templates: Templates, target: TargetSpec, options: Resampling | None = None
) -> VisionTransformer:
    """Initialise a plain timm model of any size, with neither training nor data (ours).

    Args:
        templates: What stage 1 made.
        target: The size.
        options: How it is read off the auxiliary model; by default as stage 1 sampled sizes.

    Raises:
        WaveError: The templates cannot build the size.

    >>> templates = Templates.load("benchmarks/artifacts/fashion-mnist/templates")
    >>> model = initialise(templates, TargetSpec(embed_dim=64, depth=4))
    >>> type(model).__name__, model.embed_dim, len(model.blocks)
    ('VisionTransformer', 64, 4)
    """
    return plain_model(templates, target_model(templates, target, options=options))
