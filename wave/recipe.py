"""Recipe: the settings of one training, and the batch that every training reads."""

import math
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, NamedTuple, get_args

from torch import Tensor

from .errors import WaveError

Precision = Literal["float32", "bfloat16"]
"""What forward passes compute in."""
_AT_LEAST_ONE = ("steps", "epochs", "batch_size", "log_every")
_POSITIVE = ("lr", "tau")
_NOT_NEGATIVE = (
    "clip_grad",
    "weight_decay",
    "warmup_steps",
    "min_lr",
    "kl_weight",
    "ce_weight",
    "mixup",
    "cutmix",
    "template_lr_scale",
    "scaler_lr_scale",
)


class Batch(NamedTuple):
    """Some images with their labels.

    Args:
        images: Normalised, float32 (B, C, H, W).
        labels: int64 (B,).
        teacher_logits: The teacher's logits for these images, float32 (B, K), if they are cached.
    """

    images: Tensor
    labels: Tensor
    teacher_logits: Tensor | None = None


@dataclass(frozen=True)
class Recipe:
    """The settings of one training: of the ancestor, of stage 1, or of a size in stage 2.

    The loss is ``kl_weight * tau^2 * KL(teacher || student at tau) + ce_weight * CE`` (WAVE, stage
    1; the temperature after Hinton et al., 2015). Its first term needs a teacher.

    Raises:
        WaveError: A value is impossible, or has no effect beside the others.

    >>> Recipe(epochs=3, batch_size=100).total_steps(steps_per_epoch=50)
    150
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    steps: int | None = None
    """Optimiser steps of the whole training. Give either `steps` or `epochs`."""
    epochs: int | None = None
    """Passes over the training images. Give either `steps` or `epochs`."""
    batch_size: int = 128
    """Images per step, over all workers together."""
    lr: float = 1e-3
    """Peak learning rate of AdamW, above 0. It rises linearly over `warmup_steps` and falls to
    `min_lr` along a cosine."""
    weight_decay: float = 0.05
    """AdamW's weight decay, 0 or more; norms and biases have none."""
    warmup_steps: int = 0
    """Steps until the peak learning rate, fewer than all steps."""
    min_lr: float = 1e-5
    """Learning rate at the end, at most `lr`."""
    clip_grad: float = 1.0
    """Largest norm of the gradient; larger ones are scaled down. 0 does not clip."""
    precision: Precision = "float32"
    """`"bfloat16"` runs the forward pass under autocast, faster on recent GPUs; weights are always
    built in float32."""
    tau: float = 1.0
    """Temperature of the distillation loss, above 0. Higher values pay more attention to the
    ancestor's second guesses; 4 was best on Fashion-MNIST."""
    kl_weight: float = 1.0
    """Weight of the distance from the ancestor's logits, 0 or more. An ancestor's own training does
    not use it."""
    ce_weight: float = 1.0
    """Weight of the cross-entropy with the labels, 0 or more."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over all classes, 0 to below 1."""
    template_lr_scale: float = 1.0
    """Multiplies the learning rate of templates. Only in stage 1."""
    scaler_lr_scale: float = 1.0
    """Multiplies the learning rate of scalers."""
    ema_decay: float | None = None
    """Decay of an exponential moving average of the weights, between 0 and 1; the average is what
    is kept. Default: no average."""
    mixup: float = 0.0
    """Strength of mixup, 0 or more; 0 does not mix. Meant for long trainings."""
    cutmix: float = 0.0
    """Strength of cutmix, 0 or more; 0 does not mix. Meant for long trainings."""
    checkpoint_activations: bool = False
    """Recomputes activations in the backward pass: less memory, about a third more time."""
    compile: bool = False
    """Compiles the blocks of the model with torch.compile; in stage 1 those of the auxiliary model.
    """
    log_every: int = 20
    """Steps between two lines of progress and two logged metrics."""

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise WaveError(
                f"steps={self.steps} and epochs={self.epochs}: give exactly one of the two"
            )
        self._check_numbers()
        self._check_loss()
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise WaveError(f"ema_decay={self.ema_decay} must be between 0 and 1")
        if self.precision not in get_args(Precision):
            choices = ", ".join(get_args(Precision))
            raise WaveError(f"precision={self.precision!r} is unknown; use one of {choices}")
        if self.min_lr > self.lr:
            raise WaveError(
                f"min_lr={self.min_lr} is greater than lr={self.lr}; it is what the rate falls to"
            )

    def _check_numbers(self) -> None:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in values.items():
            if isinstance(value, str) and name != "precision":
                raise WaveError(f"{name}={value!r} must be a number")
            if isinstance(value, float) and not math.isfinite(value):
                raise WaveError(f"{name}={value} must be a finite number")
        for name in _AT_LEAST_ONE:
            if values[name] is not None and values[name] < 1:
                raise WaveError(f"{name}={values[name]} must be at least 1")
        for name in _POSITIVE:
            if not values[name] > 0:
                raise WaveError(f"{name}={values[name]} must be greater than 0")
        for name in _NOT_NEGATIVE:
            if not values[name] >= 0:
                raise WaveError(f"{name}={values[name]} must not be negative")

    def _check_loss(self) -> None:
        if self.kl_weight == 0 and self.ce_weight == 0:
            raise WaveError("kl_weight=0 and ce_weight=0 leave no loss; set one of them to 1")
        if self.kl_weight == 0 and self.tau != 1:
            raise WaveError(f"tau={self.tau} has no effect with kl_weight=0; leave it out")
        if self.ce_weight == 0 and self.label_smoothing:
            raise WaveError(
                f"label_smoothing={self.label_smoothing} has no effect with ce_weight=0; "
                "leave it out"
            )
        if not 0 <= self.label_smoothing < 1:
            raise WaveError(f"label_smoothing={self.label_smoothing} must be in [0, 1)")

    def num_images(self, rows: int) -> int:
        """Return how many images the whole training reads from a set of ``rows``.

        Raises:
            WaveError: As :meth:`total_steps`.
        """
        steps_per_epoch = -(-rows // self.batch_size)
        return self.total_steps(steps_per_epoch) * self.batch_size

    def total_steps(self, steps_per_epoch: int) -> int:
        """Return the number of optimiser steps of the whole training.

        Raises:
            WaveError: The warm-up does not end before the training.
        """
        total = self.steps
        if total is None:
            total = (self.epochs or 0) * steps_per_epoch
        if self.warmup_steps >= total:
            raise WaveError(
                f"warmup_steps={self.warmup_steps} must be smaller than all {total} steps"
            )
        return total
