"""Weight selection: a smaller model takes evenly spaced elements of a larger one."""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from ..family import Family
from ..spec import TargetSpec
from ..vit import HEADS
from .base import Baseline, Batches, check_reach, complete, dense, shrinking_only


def select(source: int, target: int) -> Tensor:
    """Indices of the ``target`` elements taken from an axis of ``source``, int64, even spacing.

    ``arange(s) * (t / s)`` when s divides t, else ``round(linspace(0, t - 1, s))``.
    """
    if source % target == 0:
        return torch.arange(target) * (source // target)
    return torch.linspace(0, source - 1, target).round().long()


def select_heads(source: int, target: int, head_dim: int, parts: int = 1) -> Tensor:
    """Indices of whole attention heads on an axis of ``parts`` x ``source`` entries: :func:`select` among heads."""
    heads = select(source // head_dim, target // head_dim)
    one = (heads[:, None] * head_dim + torch.arange(head_dim)).flatten()
    return (torch.arange(parts)[:, None] * source + one).flatten()


def initialise(
    ancestor: nn.Module,
    family: Family,
    target: TargetSpec,
    seed: int,
    batches: Batches | None = None,
    *,
    classifier: bool = False,
    whole_heads: bool = False,
) -> dict[str, Tensor]:
    """``W'[i, j] = W[select(i), select(j)]`` for every tensor of the first layers, shrinking only.

    Xu et al., Initializing Models with Larger Ones, ICLR 2024; the released rule goes by shapes alone, on every axis
    of every tensor whose name does not hold ``head``: the classifier is drawn anew. The release takes ``linspace(0,
    t, s)`` where s does not divide t, whose last index lies outside; we end at t - 1. Images and patches of another
    size are resized by timm's functions. Ours: ``classifier`` also selects the classifier's columns when the classes
    are equal, which their setting never had; ``whole_heads`` selects among attention heads instead of among their
    channels, on the rows of qkv and the columns of proj.
    """
    check_reach("weight_selection", shrinking_only, family, target)
    full = family.resolve(target)
    small = replace(family.size, embed_dim=full.embed_dim, depth=full.depth)
    widths = family.size.embed_dim, small.embed_dim
    source = dense(ancestor)
    state: dict[str, Tensor] = {}
    for name, like in family.create(small, device="meta").state_dict().items():
        if name.split(".")[0] in HEADS and not classifier:
            continue
        tensor = source[name]
        for dim, (old, new) in enumerate(zip(tensor.shape, like.shape, strict=True)):
            index = select(old, new)
            if whole_heads and "attn.qkv" in name and dim == 0:
                index = select_heads(*widths, family.head_dim, parts=3)
            if whole_heads and name.endswith("attn.proj.weight") and dim == 1:
                index = select_heads(*widths, family.head_dim)
            tensor = tensor.index_select(dim, index)
        state[name] = tensor
    return complete(state, family, full, seed)


BASELINE = Baseline("weight_selection", initialise, shrinking_only)
CLASSIFIER = Baseline("weight_selection_classifier", partial(initialise, classifier=True), shrinking_only)
HEADWISE = Baseline("weight_selection_heads", partial(initialise, classifier=True, whole_heads=True), shrinking_only)
