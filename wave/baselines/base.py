"""Baseline: what every other initialisation offers, and the helpers that they share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from ..errors import WaveError
from ..family import Family
from ..resampling import Resampling, resample
from ..seeding import seeded
from ..spec import TargetSpec
from ..template_spec import TemplateSpec
from ..train import Batches

Reach = Callable[[TargetSpec, TargetSpec], str | None]
"""``reach(source, target)``: None where a method can build ``target`` from an ancestor of size
``source``, else a short reason such as ``growth only``."""


class Initialise(Protocol):
    """What builds a size: ``initialise(ancestor, family, target, seed, batches)``.

    Args:
        ancestor: The trained timm model of size ``family.size``; for a method with a stage 1 of its
            own the trained :class:`wave.baselines.stage1.Stage1`.
        family: The ancestor's family.
        target: The size to build.
        seed: The same seed gives the same tensors.
        batches: Training batches of the target's image size and classes, for methods that train.

    Returns:
        The complete state dict of ``family.create(target)``, float32 on the CPU.
    """

    def __call__(
        self,
        ancestor: nn.Module,
        family: Family,
        target: TargetSpec,
        seed: int,
        batches: Batches | None = None,
    ) -> dict[str, Tensor]: ...


class MakeStage1(Protocol):
    """What makes the model to train in a method's own stage 1, at random or from ``ancestor``."""

    def __call__(
        self, family: Family, seed: int = 0, ancestor: nn.Module | None = None
    ) -> nn.Module: ...


def any_size(source: TargetSpec, target: TargetSpec) -> str | None:
    """Reach every size."""
    return None


def same_heads(source: TargetSpec, target: TargetSpec) -> str | None:
    """Reach sizes with the ancestor's channels per head and its ratio of the MLP."""
    if target.num_heads or target.mlp_ratio:
        return "ancestor's heads and MLP only"
    return None


def shrinking_only(source: TargetSpec, target: TargetSpec) -> str | None:
    """Reach sizes of which neither width nor depth is larger."""
    if target.embed_dim > source.embed_dim or target.depth > source.depth:
        return "shrinking only"
    return same_heads(source, target)


def growth_only(source: TargetSpec, target: TargetSpec) -> str | None:
    """Reach sizes of which neither width nor depth is smaller."""
    if target.embed_dim < source.embed_dim or target.depth < source.depth:
        return "growth only"
    return same_heads(source, target)


def depth_only(source: TargetSpec, target: TargetSpec) -> str | None:
    """Reach sizes of the ancestor's width."""
    if target.embed_dim != source.embed_dim:
        return "depth only"
    return same_heads(source, target)


@dataclass(frozen=True)
class Baseline:
    """Another initialisation that this one is compared with.

    Args:
        name: Its name in tables and results.
        initialise: Builds the weights of a size.
        reach: Which sizes it can build.
        needs_batches: Whether :attr:`initialise` trains, and needs batches of training data.
        steps: Training steps that :attr:`initialise` takes for each size. They count as part of the
            size's budget.
        stage1: Makes the auxiliary model of methods with a stage 1 of their own. Train it with the
            same budget as ours, then pass it to :attr:`initialise` in place of the ancestor.

    >>> from wave import Family, TargetSpec, complete_state, dense_state
    >>> def zeros(ancestor, family, target, seed, batches=None):
    ...     state = dense_state(family.create(target))
    ...     return {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    >>> baseline = Baseline("zeros", zeros, reach=any_size)
    >>> baseline.reach(TargetSpec(96, 6), TargetSpec(64, 12)) is None
    True
    """

    name: str
    initialise: Initialise
    reach: Reach = same_heads
    needs_batches: bool = False
    steps: int = 0
    stage1: MakeStage1 | None = None


def dense_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a float32 copy of a plain model's state on the CPU."""
    return {
        name: tensor.detach().float().cpu().clone() for name, tensor in model.state_dict().items()
    }


def fresh_state(family: Family, target: TargetSpec, seed: int) -> dict[str, Tensor]:
    """Return timm's own random start of a size."""
    with seeded(seed):
        return dense_state(family.create(target))


def check_reach(name: str, reach: Reach, family: Family, target: TargetSpec) -> None:
    """Make sure that a method can build a size.

    Raises:
        WaveError: It cannot; the message says why.
    """
    reason = reach(family.size, family.resolve(target))
    if reason is not None:
        own = f"{family.size.embed_dim}x{family.size.depth}"
        raise WaveError(f"{name} cannot reach {target.name} from {own}: {reason}")


def shape_rules(family: Family) -> TemplateSpec:
    """Return the family's rules for heads and MLPs, as a :class:`wave.TemplateSpec` holds them.

    It gives axis lengths, and :func:`wave.resample` wants it; its templates play no part.
    """
    return TemplateSpec.uniform(family.head_dim, 1, mlp_ratio=family.mlp_ratio)


def stack_layers(
    state: Mapping[str, Tensor], depth: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Stack the tensors of all blocks over layers.

    Returns:
        Stacks (L, ...) by name in a block, and all tensors outside the blocks.
    """
    first = "blocks.0."
    names = [name.removeprefix(first) for name in state if name.startswith(first)]
    stacks = {
        name: torch.stack([state[f"blocks.{i}.{name}"] for i in range(depth)]) for name in names
    }
    rest = {name: tensor for name, tensor in state.items() if not name.startswith("blocks.")}
    return stacks, rest


def unstack_layers(stacks: Mapping[str, Tensor], rest: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state that :func:`stack_layers` would take apart into ``stacks`` and ``rest``."""
    state = dict(rest)
    for name, stack in stacks.items():
        for i, layer in enumerate(stack):
            state[f"blocks.{i}.{name}"] = layer
    return state


def complete_state(
    state: Mapping[str, Tensor], family: Family, target: TargetSpec, seed: int
) -> dict[str, Tensor]:
    """Complete a dense state that has the target's width and depth already.

    Position and patch embedding are resized by timm's functions where image or patch size differ
    from the ancestor's. A classifier of other classes is left out. What is missing then comes from
    :func:`fresh_state`.

    Returns:
        The state dict of ``family.create(target)``.

    Raises:
        WaveError: A tensor does not fit.
    """
    full = family.resolve(target)
    source = replace(family.size, embed_dim=full.embed_dim, depth=full.depth)
    rules, options = shape_rules(family), Resampling()
    resized = resample(state, source, target=full, spec=rules, options=options)
    result = fresh_state(family, full, seed=seed)
    for name, tensor in resized.items():
        wanted = tuple(result[name].shape) if name in result else "absent"
        if wanted != tuple(tensor.shape):
            raise WaveError(
                f"{name} has shape {tuple(tensor.shape)}; in {full.name} it is {wanted}"
            )
        result[name] = tensor.detach().float().cpu().clone().contiguous()
    return result
