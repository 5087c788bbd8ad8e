"""Features: the intermediate features used for distillation, beside the logits.

Tokens after each block, and what the classifier reads, as in FitNets (Romero et al., ICLR 2015). No
projection is learned (ours): the maps that read a size off the auxiliary model say which layer and
which channel of the ancestor each of the student's stands for.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F

from .errors import WaveError
from .layers import depth_map, nearest
from .resampling import Resampling, channel_map
from .spec import TargetSpec
from .template_spec import TemplateSpec
from .typed import intermediates


class Features(NamedTuple):
    """What one forward pass gives.

    Args:
        logits: (B, K).
        pooled: What the classifier reads, (B, D).
        tokens: After each block but the last, (B, T, D).
    """

    logits: Tensor
    pooled: Tensor
    tokens: list[Tensor]


def read(model: VisionTransformer, images: Tensor) -> Features:
    """Return the features of images (B, C, H, W) from one forward pass."""
    final, found = intermediates(model, images)
    tokens = [_all_tokens(each) for each in found[:-1]]
    pooled = model.forward_head(final, pre_logits=True)
    return Features(model.forward_head(final), pooled, tokens=tokens)


def _all_tokens(found: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """Prefix tokens first, as the model orders them; timm gives them apart, where there are any."""
    if isinstance(found, Tensor):
        return found
    patches, prefix = found
    return torch.cat([prefix, patches], 1)


@dataclass(frozen=True)
class Match:
    """Which features of a student are compared with which of the ancestor.

    Args:
        layers: Pairs of a student's layer and an ancestor's layer.
        channels: The ancestor's channel for each of the student's.
    """

    layers: tuple[tuple[int, int], ...]
    channels: tuple[int, ...]

    @classmethod
    def of(
        cls,
        ancestor: TargetSpec,
        auxiliary: TargetSpec,
        target: TargetSpec,
        spec: TemplateSpec,
        options: Resampling,
    ) -> "Match":
        """Match a student of size ``target`` with the ancestor; all sizes are resolved.

        An ancestor's layer is compared with the last of the student's layers that stand for it. The
        last layer is compared by what the classifier reads.
        """
        stands_for = [nearest(position) for position in depth_map(ancestor.depth, target.depth)]
        last = {source: layer for layer, source in enumerate(stands_for)}
        layers = tuple(
            (layer, source)
            for source, layer in last.items()
            if source < ancestor.depth - 1 and layer < target.depth - 1
        )
        outer = channel_map(spec, ancestor, target=auxiliary, options=options)
        inner = channel_map(spec, auxiliary, target=target, options=options)
        return cls(layers, tuple(outer[i] for i in inner))


def distance(student: Features, ancestor: Features, match: Match) -> Tensor:
    """Return the distance of a student's features from the ancestor's.

    The mean squared error of tokens, in mean over the pairs of layers, plus that of what the
    classifier reads. Each token is normalised over its channels.

    Args:
        student: Features of width D.
        ancestor: Features of the same images.
        match: Which layers and channels belong together.

    Returns:
        A scalar, differentiable in ``student``.

    Raises:
        WaveError: The two have different numbers of tokens.
    """
    channels = torch.tensor(match.channels, device=student.pooled.device)
    found = _error(student.pooled, ancestor.pooled, channels=channels)
    for layer, source in match.layers:
        error = _error(student.tokens[layer], ancestor.tokens[source], channels=channels)
        found = found + error / len(match.layers)
    return found


def _error(student: Tensor, ancestor: Tensor, channels: Tensor) -> Tensor:
    """Mean squared error of normalised tokens, (..., D) and (..., D_ancestor)."""
    if student.shape[:-1] != ancestor.shape[:-1]:
        raise WaveError(
            f"features of {student.shape[-2]} and {ancestor.shape[-2]} tokens cannot be compared: "
            "keep patches as they are"
        )
    # By token, not by batch: the mean over images is then the mean over workers.
    width = [len(channels)]
    ours = F.layer_norm(student.float(), width)
    theirs = F.layer_norm(ancestor[..., channels].float(), width)
    return F.mse_loss(ours, theirs)
