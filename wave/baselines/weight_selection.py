"""Weight selection: a smaller model takes evenly spaced elements of a larger one."""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from ..family import Family
from ..spec import TargetSpec
from ..train import Batches
from ..vit import HEADS
from .base import Baseline, check_reach, complete_state, dense_state, shrinking_only


def select(source: int, target: int) -> Tensor:
    """Return the indices of ``target`` evenly spaced elements of an axis of ``source``, int64.

    ``arange(s) * (t / s)`` when s divides t, else ``round(linspace(0, t - 1, s))``.

    >>> select(6, 3).tolist(), select(6, 4).tolist()
    ([0, 2, 4], [0, 2, 3, 5])
    """
    if source % target == 0:
        return torch.arange(target) * (source // target)
    return torch.linspace(0, source - 1, target).round().long()


def select_heads(source: int, target: int, head_dim: int, parts: int = 1) -> Tensor:
    """Return the indices of whole attention heads, :func:`select` among heads.

    Args:
        source: Entries of all heads together, before.
        target: Entries of all heads together, after.
        head_dim: Entries of one head.
        parts: How often the heads lie along the axis: 3 for q, k and v.
    """
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
    """Take ``W'[i, j] = W[select(i), select(j)]`` from every tensor of the first layers.

    Xu et al., Initializing Models with Larger Ones, ICLR 2024. The released rule goes by shapes
    alone, on every axis of every tensor whose name does not hold ``head``: the classifier is drawn
    anew. Where s does not divide t, the release takes ``linspace(0, t, s)``, whose last index lies
    outside; we end at t - 1. Images and patches of another size are resized by timm's functions.
    Shrinking only.

    Args:
        ancestor: The trained model.
        family: Its family.
        target: The size to build.
        seed: For what is drawn.
        batches: Not needed.
        classifier: Whether to select the classifier's columns too when the classes are equal, which
            they never are in the paper (ours).
        whole_heads: Whether to select among attention heads rather than among their channels, on
            the rows of qkv and the columns of proj (ours).
    """
    check_reach("weight_selection", shrinking_only, family=family, target=target)
    full = family.resolve(target)
    small = replace(family.size, embed_dim=full.embed_dim, depth=full.depth)
    source = dense_state(ancestor)
    state: dict[str, Tensor] = {}
    for name, like in family.create(small, device="meta").state_dict().items():
        if name.split(".")[0] in HEADS and not classifier:
            continue
        tensor = source[name]
        for dim, (old, new) in enumerate(zip(tensor.shape, like.shape, strict=True)):
            index = select(old, new)
            parts = _parts_of_heads(name, dim) if whole_heads else 0
            if parts:
                head_dim = family.head_dim
                index = select_heads(old // parts, new // parts, head_dim=head_dim, parts=parts)
            tensor = tensor.index_select(dim, index)
        state[name] = tensor
    return complete_state(state, family, target=full, seed=seed)


def _parts_of_heads(name: str, dim: int) -> int:
    """How often all heads lie along a dimension of a tensor; 0 where none do."""
    if "attn.qkv" in name and dim == 0:
        return 3
    if name.endswith("attn.proj.weight") and dim == 1:
        return 1
    return 0


BASELINE = Baseline("weight_selection", initialise, reach=shrinking_only)
CLASSIFIER = Baseline(
    "weight_selection_classifier", partial(initialise, classifier=True), reach=shrinking_only
)
HEADWISE = Baseline(
    "weight_selection_heads",
    partial(initialise, classifier=True, whole_heads=True),
    reach=shrinking_only,
)
