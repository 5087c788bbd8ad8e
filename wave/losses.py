"""The loss of every training: the teacher's logits and the labels."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .recipe import Recipe


def distillation_loss(
    logits: Tensor,
    target: Tensor,
    teacher: Tensor | None,
    recipe: Recipe,
    share: float | None = None,
) -> Tensor:
    """Return the loss of a batch (WAVE, stage 1; the temperature after Hinton et al., 2015).

    ``kl_weight * tau^2 * KL(softmax(teacher/tau) || softmax(logits/tau))
    + ce_weight * CE(logits, target)``, in mean over the batch.

    Args:
        logits: (B, K).
        target: Labels (B,) or probabilities (B, K).
        teacher: The teacher's logits (B, K); None leaves the first term out.
        recipe: Weights and temperature.
        share: How far the training is, 0 to 1. The second term is multiplied by it, the first by
            one minus it (teacher annealing, Clark et al., ACL 2019). None for both in full.

    Returns:
        A scalar, float32.

    >>> logits, labels = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    >>> loss = distillation_loss(logits, labels, teacher=logits, recipe=Recipe(steps=1))
    >>> round(loss.item(), 4)
    0.1269
    """
    loss = logits.new_zeros((), dtype=torch.float32)
    # In float32 also under autocast: bfloat16 has three digits, and a KL is a small difference.
    logits = logits.float()
    kl_share, ce_share = (1.0, 1.0) if share is None else (1 - share, share)
    if recipe.ce_weight * ce_share:
        entropy = F.cross_entropy(logits, target, label_smoothing=recipe.label_smoothing)
        loss = loss + recipe.ce_weight * ce_share * entropy
    if recipe.kl_weight and teacher is not None:
        student = F.log_softmax(logits / recipe.tau, dim=1)
        wanted = F.log_softmax(teacher.float() / recipe.tau, dim=1)
        divergence = F.kl_div(student, wanted, log_target=True, reduction="batchmean")
        loss = loss + recipe.kl_weight * kl_share * recipe.tau**2 * divergence
    return loss
