"""Baseline: what every rival method offers, and the few helpers that all of them share."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from ..errors import WaveError
from ..family import Family
from ..recipe import Batch
from ..resampling import Resampling, resample
from ..seeding import seeded
from ..spec import TargetSpec, TemplateSpec

Batches = Callable[[int], Iterator[Batch]]
"""``batches(step)`` iterates over training batches from that step on, as :class:`wave.train.Trainer` reads them; images
have the target's size, labels its classes."""

Reach = Callable[[TargetSpec, TargetSpec], str | None]


class Initialise(Protocol):
    """``initialise(ancestor, family, target, seed, batches)``: the complete state dict of ``family.create(target)``.

    Tensors are float32 on the CPU, and the same seed gives the same tensors. ``ancestor`` is the trained timm model of
    size ``family.size``; for a method with a stage 1 of its own it is the trained :class:`~.stage1.Stage1`.
    """

    def __call__(
        self, ancestor: nn.Module, family: Family, target: TargetSpec, seed: int, batches: Batches | None = None
    ) -> dict[str, Tensor]: ...


class MakeStage1(Protocol):
    """``stage1(family, seed, ancestor)``: the model to train in stage 1, started at random or close to ``ancestor``."""

    def __call__(self, family: Family, seed: int = 0, ancestor: nn.Module | None = None) -> nn.Module: ...


def anything(source: TargetSpec, target: TargetSpec) -> str | None:
    """Every size is reached."""
    return None


def same_heads(source: TargetSpec, target: TargetSpec) -> str | None:
    """Heads have the ancestor's channels, and MLPs its ratio."""
    return "ancestor's heads and MLP only" if target.num_heads or target.mlp_ratio else None


def shrinking_only(source: TargetSpec, target: TargetSpec) -> str | None:
    """Neither width nor depth may grow."""
    grows = target.embed_dim > source.embed_dim or target.depth > source.depth
    return "shrinking only" if grows else same_heads(source, target)


def growth_only(source: TargetSpec, target: TargetSpec) -> str | None:
    """Neither width nor depth may shrink."""
    shrinks = target.embed_dim < source.embed_dim or target.depth < source.depth
    return "growth only" if shrinks else same_heads(source, target)


def depth_only(source: TargetSpec, target: TargetSpec) -> str | None:
    """The width stays."""
    return "depth only" if target.embed_dim != source.embed_dim else same_heads(source, target)


@dataclass(frozen=True)
class Baseline:
    """One rival method.

    ``reach(source, target)`` is None where the method can build ``target``, else a short reason such as ``growth
    only``. ``steps`` are training steps that :attr:`initialise` itself takes for each size, on ``batches``; they count
    as the size's cost. ``stage1`` makes the auxiliary model of methods that have a stage 1 of their own: train it with
    the same budget as ours, then pass it to :attr:`initialise` in place of the ancestor.
    """

    name: str
    initialise: Initialise
    reach: Reach = same_heads
    needs_batches: bool = False
    steps: int = 0
    stage1: MakeStage1 | None = None


def dense(model: nn.Module) -> dict[str, Tensor]:
    """A float32 copy of a plain model's state on the CPU."""
    return {name: tensor.detach().float().cpu().clone() for name, tensor in model.state_dict().items()}


def fresh(family: Family, target: TargetSpec, seed: int) -> dict[str, Tensor]:
    """timm's own random start of a size."""
    with seeded(seed):
        return dense(family.create(target))


def check_reach(name: str, reach: Reach, family: Family, target: TargetSpec) -> None:
    """Raise :class:`WaveError` with the reason when the method cannot build ``target``."""
    reason = reach(family.size, family.resolve(target))
    if reason is not None:
        raise WaveError(f"{name} cannot reach {target.name} from {family.size.embed_dim}x{family.size.depth}: {reason}")


def shape_rules(family: Family) -> TemplateSpec:
    """The family's head and MLP width rules, for :func:`wave.vit.axes` and axis lengths; its templates mean nothing."""
    return TemplateSpec.uniform(family.head_dim, 1, mlp_ratio=family.mlp_ratio)


def stack_layers(state: Mapping[str, Tensor], depth: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of the blocks stacked over layers (L, ...), by name inside a block; and all other tensors."""
    names = [name.removeprefix("blocks.0.") for name in state if name.startswith("blocks.0.")]
    stacks = {name: torch.stack([state[f"blocks.{i}.{name}"] for i in range(depth)]) for name in names}
    return stacks, {name: tensor for name, tensor in state.items() if not name.startswith("blocks.")}


def unstack_layers(stacks: Mapping[str, Tensor], rest: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`stack_layers`."""
    return dict(rest) | {f"blocks.{i}.{name}": layer for name, s in stacks.items() for i, layer in enumerate(s)}


def complete(state: Mapping[str, Tensor], family: Family, target: TargetSpec, seed: int) -> dict[str, Tensor]:
    """The state dict of ``family.create(target)`` from a dense state that has its width and depth already.

    The position embedding and patch embedding are resized by timm's functions when image or patch size differ from the
    ancestor's. A classifier for another number of classes is left out, and whatever is missing then comes from
    :func:`fresh`. Raises :class:`WaveError` for a tensor that does not fit.
    """
    full = family.resolve(target)
    source = replace(family.size, embed_dim=full.embed_dim, depth=full.depth)
    resized = resample(state, source, full, shape_rules(family), Resampling())
    result = fresh(family, full, seed)
    for name, tensor in resized.items():
        if name not in result or result[name].shape != tensor.shape:
            wanted = tuple(result[name].shape) if name in result else "absent"
            raise WaveError(f"{name} has shape {tuple(tensor.shape)}; in {full.name} it is {wanted}")
        result[name] = tensor.detach().float().cpu().clone().contiguous()
    return result
