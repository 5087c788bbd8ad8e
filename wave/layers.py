"""Depth: which layer of the source each layer of another depth is read off (ours)."""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

Depth = Literal["nearest", "linear", "identity"]
_WRITERS = ("attn.proj.", "mlp.fc2.")


def depth_map(source: int, target: int) -> list[float]:
    """Return the position in the source of each target layer, ``j (L_source - 1) / (L - 1)``.

    First and last layers stand for each other; a single layer is read off the first.

    >>> depth_map(5, 3)
    [0.0, 2.0, 4.0]
    """
    return [j * (source - 1) / max(target - 1, 1) for j in range(target)]


def nearest(position: float) -> int:
    """Return the layer that a position is closest to, halves upwards."""
    return math.floor(position + 0.5)


def resample_depth(
    state: Mapping[str, Tensor], source: int, target: int, mode: Depth
) -> dict[str, Tensor]:
    """Return a state with another number of blocks.

    Args:
        state: Tensors by timm's names, ``blocks.0.`` to ``blocks.{source - 1}.`` and others.
        source: Its number of blocks.
        target: The number of blocks to return.
        mode: As in :class:`wave.resampling.Resampling`.
    """
    layers, result = _by_layer(state, source)
    originals = _originals(source, target) if mode == "identity" and target > source else None
    for j, position in enumerate(depth_map(source, target)):
        layer = _layer(layers, position, mode)
        if originals is not None:
            layer = layers[originals[j]] if j in originals else _identity(layer)
        result |= {f"blocks.{j}.{name}": tensor for name, tensor in layer.items()}
    return result


def _by_layer(
    state: Mapping[str, Tensor], depth: int
) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
    """The tensors of each block by their names in it, and all tensors outside the blocks."""
    layers: list[dict[str, Tensor]] = [{} for _ in range(depth)]
    others: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.startswith("blocks."):
            _, layer, rest = name.split(".", 2)
            layers[int(layer)][rest] = tensor
        else:
            others[name] = tensor
    return layers, others


def _layer(layers: list[dict[str, Tensor]], position: float, mode: Depth) -> dict[str, Tensor]:
    """The layer at a position between layers."""
    low = min(int(position), len(layers) - 1)
    high = min(low + 1, len(layers) - 1)
    weight = position - int(position)
    if mode == "linear" and weight > 0:
        above = layers[high]
        return {name: torch.lerp(x, above[name], weight) for name, x in layers[low].items()}
    return layers[nearest(position)]


def _originals(source: int, target: int) -> dict[int, int]:
    """Where each source layer stands in a deeper model: target layer to source layer."""
    positions = [i * (target - 1) / max(source - 1, 1) for i in range(source)]
    return {nearest(position): i for i, position in enumerate(positions)}


def _identity(layer: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A layer that adds nothing to the stream, yet is ready to train."""
    # Multiplied by zero rather than replaced by zeros, to stay a function of the source: its
    # gradient exists, and DDP finds every parameter in the graph.
    return {name: x * 0 if name.startswith(_WRITERS) else x for name, x in layer.items()}
