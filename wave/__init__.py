"""WAVE: from one trained Vision Transformer, good initial weights for any size.

The method alone: torch, timm and safetensors. :func:`distil` makes templates of a trained model,
and :func:`initialise` models of any size from them. Underneath, stage 1 is :func:`canonical`,
:func:`condense` and a :class:`Trainer` of a :class:`MultiSize`; stage 2 is :func:`target_model` and
a :class:`Trainer`.

To read the code, start with ``kron``, ``spec``, ``template_spec``, ``bank``, ``linear``, ``vit``;
then ``family``, ``width``, ``layers``, ``resampling``; then ``importance``, ``canonical_form``,
``condensation``; then ``features``, ``multisize``, ``losses``, ``train``; then ``storage``,
``initialisation``, ``distillation``.
"""

from .bank import TemplateBank
from .baselines import BASELINES, Baseline, Stage1
from .baselines.base import (
    any_size,
    check_reach,
    complete_state,
    dense_state,
    depth_only,
    fresh_state,
    growth_only,
    same_heads,
    shrinking_only,
)
from .canonical_form import canonical
from .condensation import condense
from .distillation import distil, resize
from .errors import Diverged, WaveError
from .export import save_model
from .family import Family, size_of
from .initialisation import Scalers, initialise, plain_model, target_model
from .kron import Order, fit_scalers, fit_templates, kron_sum
from .linear import TemplatedLinear
from .losses import distillation_loss
from .measure import accuracy, all_logits, macs, num_parameters
from .multisize import MultiSize, SizeSampler, inverse_cost
from .progress import Metrics
from .recipe import Batch, Precision, Recipe
from .resampling import Resampling, resample
from .spec import KINDS, Kind, TargetSpec
from .storage import Templates
from .teacher import Teacher
from .template_spec import TemplateSpec
from .train import Batches, Trainer
from .vit import check_supported, materialise, templated

__version__ = "0.1.0"

# By topic rather than by letter, for people who look for what there is.
__all__ = [  # noqa: RUF022
    # From a trained model to any size
    "distil",
    "resize",
    "initialise",
    "Templates",
    "TargetSpec",
    "save_model",
    # Which models and sizes
    "Family",
    "TemplateSpec",
    "KINDS",
    "Kind",
    "check_supported",
    "size_of",
    # Stage 1, step by step
    "canonical",
    "condense",
    "MultiSize",
    "SizeSampler",
    "inverse_cost",
    "Teacher",
    # Stage 2, step by step
    "target_model",
    "Scalers",
    "plain_model",
    "Resampling",
    "resample",
    # Training
    "Trainer",
    "Recipe",
    "Precision",
    "Batch",
    "Batches",
    "Metrics",
    "distillation_loss",
    # Templated models
    "TemplateBank",
    "TemplatedLinear",
    "templated",
    "materialise",
    # The algebra
    "kron_sum",
    "fit_scalers",
    "fit_templates",
    "Order",
    # Measuring
    "accuracy",
    "all_logits",
    "macs",
    "num_parameters",
    # Baselines, and what it takes to write one
    "BASELINES",
    "Baseline",
    "Stage1",
    "dense_state",
    "fresh_state",
    "complete_state",
    "check_reach",
    "any_size",
    "same_heads",
    "shrinking_only",
    "growth_only",
    "depth_only",
    # Errors
    "WaveError",
    "Diverged",
]
