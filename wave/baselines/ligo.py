"""LiGO: a larger model as a learned linear function of the ancestor's weights, growth only."""

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from ..errors import WaveError
from ..family import Family
from ..multisize import bind
from ..recipe import Recipe
from ..seeding import seeded
from ..spec import TargetSpec
from ..train import Trainer
from ..vit import axes
from .base import Baseline, Batches, check_reach, complete, dense, growth_only, shape_rules

STEPS = 100
RECIPE = Recipe(steps=STEPS, lr=1e-3, min_lr=0.0, weight_decay=0.0, kl_weight=0.0)
"""Cross-entropy on the training data, as released for BERT; the rate is ours, and so is leaving weight decay out."""
NOISE = 0.03
WIDTHS = {
    "attn.qkv": ("qkv", "embed"),
    "attn.proj": ("embed", "v"),
    "mlp.fc1": ("ffn", "embed"),
    "mlp.fc2": ("embed", "ffn"),
}
"""The growth of rows and columns of each matrix: what one layer writes, the next reads by the same coefficients."""


def grow_rows(tensor: Tensor, a: Tensor | None) -> Tensor:
    """``B W`` with ``B = [I; A]``: (m, ...) to (m', ...); ``A`` is (m' - m, m), None for an axis that stays."""
    return (
        tensor
        if a is None
        else torch.cat(
            [tensor, (a @ tensor.flatten(1)).reshape(-1, *tensor.shape[1:]) if tensor.ndim > 1 else a @ tensor]
        )
    )


def grow_last(tensor: Tensor, a: Tensor | None) -> Tensor:
    """``W B^T``: the same growth on the last axis, (..., m) to (..., m')."""
    return tensor if a is None else torch.cat([tensor, tensor @ a.T], dim=-1)


class Growth(nn.Module):
    """``model(images)`` gives the logits (B, K) of the grown model; its parameters are the coefficients alone.

    ``W'[l] = B_out (sum_j c[l, j] W[j]) B_in^T`` (Wang et al., Learning to Grow, ICLR 2023), tied as in the released
    code: ``c`` is for every tensor of a layer by itself, q, k and v too; ``B_embed`` is one for the whole residual
    stream, and layer l has B for q, k, v and the MLP's hidden axis; v's also grows what proj reads, and the MLP's what
    fc2 reads. Starts as the released commands have it: ``c[l, j]`` is 1 at j = l mod L and U(0, 0.03) elsewhere; rows
    of ``A`` are U(0, 1); the rows of both are divided by their sums.
    """

    def __init__(self, source: dict[str, Tensor], family: Family, target: TargetSpec, seed: int) -> None:
        super().__init__()
        full, old = family.resolve(target), family.size
        spec = shape_rules(family)
        self.depth, self.kinds, self.widen = full.depth, spec, full.embed_dim > old.embed_dim
        self.__dict__["source"] = source
        self.__dict__["skeleton"] = family.create(full, device="meta")
        names = [n.removeprefix("blocks.0.") for n in source if n.startswith("blocks.0.")]
        widths = old.embed_dim, full.embed_dim
        embed, ffn = widths, (spec.shape(old).hidden, spec.shape(full).hidden)
        with seeded(seed):
            self.mixing = nn.ModuleList(
                nn.ParameterDict({n.replace(".", "/"): _depth_start(i, old.depth, _parts(n)) for n in names})
                for i in range(full.depth)
            )
            keys = {"q": embed, "k": embed, "v": embed, "ffn": ffn} if self.widen else {}
            self.widths = nn.ModuleList(
                nn.ParameterDict({key: _width_start(*size) for key, size in keys.items()}) for _ in range(full.depth)
            )
            self.embed = nn.Parameter(_width_start(*embed)) if self.widen else None
        self.stacks = {n: [source[f"blocks.{j}.{n}"] for j in range(old.depth)] for n in names}

    def _width(self, layer: int, key: str) -> Tensor | None:
        if not self.widen:
            return None
        return self.embed if key == "embed" else cast(nn.ParameterDict, self.widths[layer])[key]

    def _block_tensor(self, layer: int, name: str) -> Tensor:
        stack = torch.stack(self.stacks[name])
        mixing = cast(nn.ParameterDict, self.mixing[layer])[name.replace(".", "/")]
        parts = [
            torch.einsum("j,j...->...", c, part)
            for c, part in zip(mixing, stack.chunk(len(mixing), dim=1), strict=True)
        ]
        rows, columns = WIDTHS.get(name.rpartition(".")[0], (self._vector(name), ""))
        keys = ("q", "k", "v") if rows == "qkv" else (rows,)
        grown = [grow_rows(w, self._width(layer, k)) if k else w for w, k in zip(parts, keys, strict=True)]
        if columns and grown[0].ndim == 2:
            grown = [grow_last(w, self._width(layer, columns)) for w in grown]
        return torch.cat(grown)

    def _vector(self, name: str) -> str:
        axis = axes(f"blocks.0.{name}", self.kinds)[0]
        return {"embed": "embed", "hidden": "ffn"}.get(axis or "", "")

    def state(self) -> dict[str, Tensor]:
        """All tensors of the grown model, with the graph to the coefficients."""
        result: dict[str, Tensor] = {}
        for name, tensor in cast(dict[str, Tensor], self.__dict__["source"]).items():
            if name.startswith("blocks."):
                continue
            wide = axes(name, self.kinds)
            grown = grow_rows(tensor, self.embed) if wide[0] == "embed" else tensor
            result[name] = grow_last(grown, self.embed) if wide[0] is None and wide[-1] == "embed" else grown
        for layer in range(self.depth):
            result |= {f"blocks.{layer}.{name}": self._block_tensor(layer, name) for name in self.stacks}
        return result

    def forward(self, images: Tensor) -> Tensor:
        skeleton = cast(nn.Module, self.__dict__["skeleton"]).train(self.training)
        bind(skeleton, self.state())
        logits: Tensor = skeleton(images)
        return logits


def _parts(name: str) -> int:
    return 3 if name.startswith("attn.qkv.") else 1


def _depth_start(layer: int, source: int, parts: int) -> Tensor:
    start = NOISE * torch.rand(parts, source)
    start[:, layer % source] = 1.0
    return start / start.sum(1, keepdim=True)


def _width_start(source: int, target: int) -> Tensor:
    start = torch.rand(target - source, source)
    return start / start.sum(1, keepdim=True)


def initialise(
    ancestor: nn.Module, family: Family, target: TargetSpec, seed: int, batches: Batches | None = None
) -> dict[str, Tensor]:
    """The grown weights after :data:`STEPS` steps on the coefficients alone (:class:`Growth`, :data:`RECIPE`).

    The steps are made where the ancestor is. The classifier is grown with the residual stream when the classes are
    equal; otherwise a drawn one is. Images and patches of another size are resized before growing. Raises
    :class:`WaveError` without ``batches``.
    """
    check_reach("ligo", growth_only, family, target)
    if batches is None:
        raise WaveError(f"ligo trains its coefficients for {STEPS} steps and needs batches of training data")
    full = family.resolve(target)
    small = replace(full, embed_dim=family.size.embed_dim, depth=family.size.depth)
    device = next(ancestor.parameters()).device
    source = {name: tensor.to(device) for name, tensor in complete(dense(ancestor), family, small, seed).items()}
    growth = Growth(source, family, full, seed).to(device)
    for _ in Trainer(growth, RECIPE, STEPS, seed=seed, device=device).run(batches):
        pass
    with torch.no_grad():
        return complete(growth.state(), replace_size(family, full), full, seed)


def replace_size(family: Family, size: TargetSpec) -> Family:
    """The same family seen from another size: nothing is left to resize."""
    return replace(family, size=size)


BASELINE = Baseline("ligo", initialise, growth_only, needs_batches=True, steps=STEPS)
