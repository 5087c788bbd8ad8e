"""The optimiser of every training, and how its learning rate falls: AdamW and timm's cosine."""

from typing import Any

import torch
from timm.scheduler.cosine_lr import CosineLRScheduler
from torch import nn

from .recipe import Recipe
from .typed import weight_decay_groups
from .vit import BANK

NO_DECAY = ("*pos_embed", "*cls_token", "*reg_token", "*dist_token")


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Return timm's two groups, split further by the learning rates of templates and scalers.

    Parameters whose rate is multiplied by 0 are in no group.
    """
    names = {id(p): name for name, p in model.named_parameters()}
    groups: list[dict[str, Any]] = []
    for group in weight_decay_groups(model, recipe.weight_decay, without=NO_DECAY):
        by_scale: dict[float, list[nn.Parameter]] = {}
        for p in group["params"]:
            by_scale.setdefault(_lr_scale(names[id(p)], recipe), []).append(p)
        # timm's scheduler multiplies every rate of the schedule, warm-up and floor too, by a
        # group's lr_scale; scaling the optimiser's lr instead would leave those two as they are.
        for scale, parameters in by_scale.items():
            if scale > 0:
                groups.append({**group, "params": parameters, "lr_scale": scale})
    return groups


def _lr_scale(name: str, recipe: Recipe) -> float:
    if f"{BANK}." in name:
        return recipe.template_lr_scale
    if name.endswith(".scalers"):
        return recipe.scaler_lr_scale
    return 1.0


def cosine_schedule(
    optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int
) -> CosineLRScheduler:
    """Return timm's schedule: a linear warm-up, then a cosine down to ``min_lr`` at ``steps``."""
    return CosineLRScheduler(
        optimizer,
        t_initial=steps,
        lr_min=recipe.min_lr,
        warmup_t=recipe.warmup_steps,
        warmup_lr_init=recipe.min_lr if recipe.warmup_steps else 0,
        warmup_prefix=False,
        t_in_epochs=False,
    )
