"""WAVE: from one trained Vision Transformer, good initial weights for a Vision Transformer of any size.

The method alone, torch and timm: read ``kron``, ``spec``, ``bank``, ``linear``, ``vit``, ``family``, ``width``,
``resampling``, ``canonical_form``, ``condensation``, ``features``, ``multisize``, ``train``, ``initialisation``,
``storage``, in this order. Stage 1 is :func:`canonical`, :func:`condense` and a :class:`Trainer`; stage 2 is
:func:`target_model` and a :class:`Trainer`; :func:`initialise` needs neither data nor training.
"""

from .bank import TemplateBank
from .canonical_form import canonical
from .condensation import condense
from .distillation import distil, resize
from .errors import Diverged, WaveError
from .family import Family
from .initialisation import initialise, plain_model, target_model
from .kron import fit_scalers, fit_templates, kron_sum
from .linear import TemplatedLinear
from .measure import accuracy, all_logits, macs, num_parameters
from .multisize import MultiSize, SizeSampler
from .recipe import Batch, Recipe
from .resampling import Resampling, resample
from .spec import KINDS, TargetSpec, TemplateSpec
from .storage import Templates, save_model
from .teacher import Teacher
from .train import Metrics, Trainer, distillation_loss
from .vit import materialise, templated

__version__ = "0.1.0"
__all__ = [
    "KINDS",
    "Batch",
    "Diverged",
    "Family",
    "Metrics",
    "MultiSize",
    "Recipe",
    "Resampling",
    "SizeSampler",
    "TargetSpec",
    "Teacher",
    "TemplateBank",
    "TemplateSpec",
    "TemplatedLinear",
    "Templates",
    "Trainer",
    "WaveError",
    "accuracy",
    "all_logits",
    "canonical",
    "condense",
    "distil",
    "distillation_loss",
    "fit_scalers",
    "fit_templates",
    "initialise",
    "kron_sum",
    "macs",
    "materialise",
    "num_parameters",
    "plain_model",
    "resample",
    "resize",
    "save_model",
    "target_model",
    "templated",
]
