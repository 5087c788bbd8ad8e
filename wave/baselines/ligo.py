"""LiGO: a larger model as a learned linear function of the ancestor's weights, growth only."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from ..errors import WaveError
from ..family import Family
from ..multisize import bind
from ..recipe import Recipe
from ..seeding import seeded
from ..spec import TargetSpec
from ..train import Batches, Trainer
from ..typed import parameter_dict
from ..vit import axes_of
from .base import (
    Baseline,
    check_reach,
    complete_state,
    dense_state,
    growth_only,
    shape_rules,
)

STEPS = 100
RECIPE = Recipe(steps=STEPS, lr=1e-3, min_lr=0.0, weight_decay=0.0, kl_weight=0.0)
"""Cross-entropy on the training data, as released for BERT. The rate is ours, and so is leaving
weight decay out."""
NOISE = 0.03
WIDTHS = {
    "attn.qkv": ("qkv", "embed"),
    "attn.proj": ("embed", "v"),
    "mlp.fc1": ("ffn", "embed"),
    "mlp.fc2": ("embed", "ffn"),
}
"""Which coefficients grow rows and columns of each matrix: what one layer writes, the next reads by
the same ones."""


def grow_rows(tensor: Tensor, a: Tensor | None) -> Tensor:
    """Return ``B W`` with ``B = [I; A]``: the first axis grows from m to m'.

    Args:
        tensor: (m, ...).
        a: (m' - m, m); None for an axis that stays.
    """
    if a is None:
        return tensor
    if tensor.ndim == 1:
        return torch.cat([tensor, a @ tensor])
    new = (a @ tensor.flatten(1)).reshape(-1, *tensor.shape[1:])
    return torch.cat([tensor, new])


def grow_last(tensor: Tensor, a: Tensor | None) -> Tensor:
    """Return ``W B^T``: the same growth on the last axis, (..., m) to (..., m')."""
    return tensor if a is None else torch.cat([tensor, tensor @ a.T], dim=-1)


class Growth(nn.Module):
    """``model(images)`` gives the logits (B, K) of the grown model; only coefficients train.

    ``W'[l] = B_out (sum_j c[l, j] W[j]) B_in^T`` (Wang et al., Learning to Grow, ICLR 2023), tied
    as in the released code: every tensor of a layer has its own ``c``, q, k and v too; ``B_embed``
    is one for the whole residual stream; layer l has B for q, k, v and the MLP's hidden axis; v's
    also grows what proj reads, and the MLP's what fc2 reads.

    It starts as the released commands have it: ``c[l, j]`` is 1 at j = l mod L and U(0, 0.03)
    elsewhere, rows of ``A`` are U(0, 1), and the rows of both are divided by their sums.

    Args:
        source: The ancestor's dense state, with the target's images, patches and classes.
        family: The ancestor's family.
        target: The size to grow to.
        seed: For the start.
    """

    def __init__(
        self, source: dict[str, Tensor], family: Family, target: TargetSpec, seed: int
    ) -> None:
        super().__init__()
        full, old = family.resolve(target), family.size
        self.depth = full.depth
        self.widen = full.embed_dim > old.embed_dim
        self.source = source
        # Outside the registry of submodules: its parameters are not to train.
        self.__dict__["skeleton"] = family.create(full, device="meta")
        first = "blocks.0."
        names = [name.removeprefix(first) for name in source if name.startswith(first)]
        rules = shape_rules(family)
        embed = (old.embed_dim, full.embed_dim)
        ffn = (rules.shape(old).hidden, rules.shape(full).hidden)
        keys = {"q": embed, "k": embed, "v": embed, "ffn": ffn} if self.widen else {}
        with seeded(seed):
            self.mixing = nn.ModuleList(
                nn.ParameterDict(_mixing_start(names, layer, depth=old.depth))
                for layer in range(full.depth)
            )
            self.widths = nn.ModuleList(
                nn.ParameterDict({key: _width_start(*lengths) for key, lengths in keys.items()})
                for _ in range(full.depth)
            )
            self.embed = nn.Parameter(_width_start(*embed)) if self.widen else None
        self.stacks = {
            name: [source[f"blocks.{j}.{name}"] for j in range(old.depth)] for name in names
        }

    def state(self) -> dict[str, Tensor]:
        """Return all tensors of the grown model, with the graph to the coefficients."""
        result: dict[str, Tensor] = {}
        for name, tensor in self.source.items():
            if not name.startswith("blocks."):
                result[name] = self._outside_blocks(name, tensor)
        for layer in range(self.depth):
            for name in self.stacks:
                result[f"blocks.{layer}.{name}"] = self._block_tensor(layer, name)
        return result

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K)."""
        skeleton: nn.Module = self.__dict__["skeleton"]
        skeleton.train(self.training)
        bind(skeleton, self.state())
        logits: Tensor = skeleton(images)
        return logits

    def _outside_blocks(self, name: str, tensor: Tensor) -> Tensor:
        """An embedding, the final norm or the classifier, grown with the residual stream."""
        own = axes_of(name)
        if own[0] == "embed":
            return grow_rows(tensor, self.embed)
        if own[-1] == "embed":
            return grow_last(tensor, self.embed)
        return tensor

    def _block_tensor(self, layer: int, name: str) -> Tensor:
        stack = torch.stack(self.stacks[name])
        mixing = parameter_dict(self.mixing, layer)[_key(name)]
        mixed = [
            torch.einsum("j,j...->...", coefficients, part)
            for coefficients, part in zip(mixing, stack.chunk(len(mixing), dim=1), strict=True)
        ]
        rows, columns = WIDTHS.get(name.rpartition(".")[0], (_vector_rows(name), ""))
        keys = ("q", "k", "v") if rows == "qkv" else (rows,)
        grown: list[Tensor] = []
        for part, key in zip(mixed, keys, strict=True):
            tall = grow_rows(part, self._width(layer, key))
            is_matrix = bool(columns) and tall.ndim == 2
            grown.append(grow_last(tall, self._width(layer, columns)) if is_matrix else tall)
        return torch.cat(grown)

    def _width(self, layer: int, key: str) -> Tensor | None:
        """The coefficients of an axis; None where it stays."""
        if not self.widen or not key:
            return None
        return self.embed if key == "embed" else parameter_dict(self.widths, layer)[key]


def _key(name: str) -> str:
    """A tensor's name as a ParameterDict takes it, without dots."""
    return name.replace(".", "/")


def _vector_rows(name: str) -> str:
    """Which coefficients grow a vector of a block; none for an axis that growth leaves alone."""
    return {"embed": "embed", "hidden": "ffn"}.get(axes_of(f"blocks.0.{name}")[0] or "", "")


def _mixing_start(names: list[str], layer: int, depth: int) -> dict[str, Tensor]:
    """Coefficients over the ancestor's layers, (1, L), and (3, L) for q, k and v."""
    start: dict[str, Tensor] = {}
    for name in names:
        parts = 3 if name.startswith("attn.qkv.") else 1
        coefficients = NOISE * torch.rand(parts, depth)
        coefficients[:, layer % depth] = 1.0
        start[_key(name)] = coefficients / coefficients.sum(1, keepdim=True)
    return start


def _width_start(source: int, target: int) -> Tensor:
    """New channels as random means of the old ones, (target - source, source)."""
    start = torch.rand(target - source, source)
    return start / start.sum(1, keepdim=True)


def initialise(
    ancestor: nn.Module,
    family: Family,
    target: TargetSpec,
    seed: int,
    batches: Batches | None = None,
) -> dict[str, Tensor]:
    """Grow the weights, after :data:`STEPS` steps on the coefficients alone (:class:`Growth`).

    The steps run where the ancestor is, by :data:`RECIPE`. The classifier is grown with the
    residual stream when the classes are equal, otherwise a drawn one is. Images and patches of
    another size are resized before growing.

    Raises:
        WaveError: There are no ``batches``, or the size is not reached.
    """
    check_reach("ligo", growth_only, family=family, target=target)
    if batches is None:
        raise WaveError(
            f"ligo trains its coefficients for {STEPS} steps and needs batches of training data"
        )
    full = family.resolve(target)
    small = replace(full, embed_dim=family.size.embed_dim, depth=family.size.depth)
    device = next(ancestor.parameters()).device
    source = complete_state(dense_state(ancestor), family, target=small, seed=seed)
    on_device = {name: tensor.to(device) for name, tensor in source.items()}
    growth = Growth(on_device, family, target=full, seed=seed).to(device)
    for _ in Trainer(growth, RECIPE, steps=STEPS, seed=seed, device=device).run(batches):
        pass
    # Seen from the target's size, so that nothing is left to resize.
    grown_family = replace(family, size=full)
    with torch.no_grad():
        return complete_state(growth.state(), grown_family, target=full, seed=seed)


BASELINE = Baseline("ligo", initialise, reach=growth_only, needs_batches=True, steps=STEPS)
