"""Features: what a student of any size is compared by with the ancestor, beside logits.

Tokens after each block and what the head reads, as in FitNets (Romero et al., ICLR 2015). No projection is learned
(ours): the maps that read a size off the auxiliary model say which layer and channel of the ancestor each stands for.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F

from .errors import WaveError
from .resampling import Resampling, channel_map, depth_map, nearest
from .spec import TargetSpec, TemplateSpec


class Features(NamedTuple):
    """``logits`` (B, K), what the head reads, ``pooled`` (B, D), and ``tokens`` (B, T, D) after all blocks but one."""

    logits: Tensor
    pooled: Tensor
    tokens: list[Tensor]


def read(model: VisionTransformer, images: Tensor) -> Features:
    """One forward pass, its features kept."""
    final, found = cast(Any, model).forward_intermediates(images, return_prefix_tokens=True, output_fmt="NLC")
    tokens = [torch.cat([x[1], x[0]], 1) if isinstance(x, tuple) else x for x in found[:-1]]
    pooled = model.forward_head(final, pre_logits=True)
    return Features(model.forward_head(final), pooled, tokens)


@dataclass(frozen=True)
class Match:
    """Pairs of a student's and an ancestor's layer, and the ancestor's channel of each of the student's."""

    layers: tuple[tuple[int, int], ...]
    channels: tuple[int, ...]

    @classmethod
    def of(
        cls, ancestor: TargetSpec, auxiliary: TargetSpec, target: TargetSpec, spec: TemplateSpec, options: Resampling
    ) -> "Match":
        """An ancestor's layer is compared with the last of the student's layers that stand for it; the last layer is
        compared by what the head reads. All sizes fully resolved."""
        stands_for = [nearest(x) for x in depth_map(ancestor.depth, target.depth)]
        last = {source: layer for layer, source in enumerate(stands_for)}
        layers = tuple((layer, source) for source, layer in last.items() if source < ancestor.depth - 1)
        outer, inner = (channel_map(spec, *pair, options) for pair in ((ancestor, auxiliary), (auxiliary, target)))
        return cls(tuple(p for p in layers if p[0] < target.depth - 1), tuple(outer[i] for i in inner))


def distance(student: Features, ancestor: Features, match: Match) -> Tensor:
    """Mean squared error of tokens in mean over the pairs of layers, plus that of what the head reads; each token is
    normalised over its channels, so that the mean over images is the mean over workers. Raises :class:`WaveError` for
    different numbers of tokens."""
    channels = torch.tensor(match.channels, device=student.pooled.device)

    def error(a: Tensor, b: Tensor) -> Tensor:
        if a.shape[:-1] != b.shape[:-1]:
            raise WaveError(
                f"features of {a.shape[-2]} and {b.shape[-2]} tokens cannot be compared: keep patches as they are"
            )
        a, b = (F.layer_norm(x.float(), [len(match.channels)]) for x in (a, b[..., channels]))
        return F.mse_loss(a, b)

    found = error(student.pooled, ancestor.pooled)
    for layer, source in match.layers:
        found = found + error(student.tokens[layer], ancestor.tokens[source]) / len(match.layers)
    return found
