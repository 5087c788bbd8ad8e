"""How much each channel, head and hidden unit of a model carries, measured on images (ours)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .typed import attention_of, blocks_of, mlp_of, split

BATCH = 64
"""Images in one forward pass."""


@dataclass(frozen=True)
class Moments:
    """Second moments ``E[x x^T]`` over tokens and images, float64.

    Args:
        stream: The normalised residual stream before all norms of the blocks, (D, D).
        heads: Per layer what proj reads, all heads together, (attn, attn).
        hidden: Per layer what fc2 reads, (hidden, hidden).
    """

    stream: Tensor
    heads: list[Tensor]
    hidden: list[Tensor]


def measure_moments(model: VisionTransformer, images: Tensor) -> Moments:
    """Run ``model`` on images (B, C, H, W), and measure what flows through it."""
    blocks = blocks_of(model)
    stream = _Sum(partial(_normalised, width=model.embed_dim))
    heads = [_Sum() for _ in blocks]
    hidden = [_Sum() for _ in blocks]
    for i, block in enumerate(blocks):
        stream.watch(block.norm1)
        stream.watch(block.norm2)
        heads[i].watch(attention_of(block).proj)
        hidden[i].watch(mlp_of(block).fc2)
    for batch in split(images.to(next(model.parameters())), BATCH):
        model(batch)
    for watching in (stream, *heads, *hidden):
        watching.close()
    return Moments(stream.mean(), [s.mean() for s in heads], [s.mean() for s in hidden])


def _normalised(x: Tensor, width: int) -> Tensor:
    """The stream as a norm without affine part gives it: large tokens count as much as small."""
    return nn.functional.layer_norm(x, [width])


class _Sum:
    """The sum of ``x x^T`` over all tokens that the watched modules read."""

    def __init__(self, change: Callable[[Tensor], Tensor] | None = None) -> None:
        self.change = change
        self.total: Tensor | float = 0.0
        self.count = 0
        self.hooks: list[RemovableHandle] = []

    def watch(self, module: nn.Module) -> None:
        self.hooks.append(module.register_forward_pre_hook(self._add))

    def _add(self, _: nn.Module, inputs: tuple[Tensor]) -> None:
        x = inputs[0] if self.change is None else self.change(inputs[0])
        x = x.flatten(0, -2).double()
        self.total = self.total + x.T @ x
        self.count += len(x)

    def mean(self) -> Tensor:
        return torch.as_tensor(self.total) / self.count

    def close(self) -> None:
        for hook in self.hooks:
            hook.remove()
