"""Stage1: an auxiliary model whose layers are fixed mixtures of a few full-size blocks, and the models read off it.

``W[l] = sum_t S[l, t] * T[t]``: our equation with full-size templates and 1 x 1 scalers that a rule sets and nobody
trains. TLEG, SWS and one shared block are the three rules. As in their released code the mixture holds for all tensors
of a block: the four matrices are templates of a :class:`TemplateBank`; norms, biases and layer scales are mixed by
the same scalers.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from ..bank import TemplateBank
from ..errors import WaveError
from ..family import Family
from ..kron import kron_sum
from ..linear import TemplatedLinear
from ..multisize import bind
from ..seeding import seeded
from ..spec import AXES, KINDS, Kind, TargetSpec, TemplateSpec
from ..vit import BANK, PATHS, linears, templated
from .base import Baseline, Batches, check_reach, complete, dense, depth_only, shape_rules, stack_layers

Rule = Callable[[int], Tensor]
"""``rule(L)``: the scalers of a model of depth L, (L, N) float32."""

KIND_OF: dict[str, Kind] = {f"{holder}.{name}.weight": kind for kind, (holder, name) in PATHS.items()}


def full_size_spec(family: Family, count: int) -> TemplateSpec:
    """``count`` templates a kind, each as large as the ancestor's matrix: (3D, D), (D, D), (rD, D), (D, rD)."""
    shape = shape_rules(family).shape(family.size)
    blocks: dict[Kind, tuple[int, int]] = {k: (shape.length(AXES[k][0]), shape.length(AXES[k][1])) for k in KINDS}
    return TemplateSpec(blocks, dict.fromkeys(KINDS, count), family.head_dim, family.mlp_ratio)


def fit(scalers: Tensor, stack: Tensor) -> Tensor:
    """Templates (N, ...) whose mixtures by ``scalers`` (L, N) are closest to ``stack`` (L, ...), least squares."""
    return (torch.pinverse(scalers) @ stack.flatten(1)).reshape(-1, *stack.shape[1:])


class Stage1(nn.Module):
    """``model(images)`` gives logits (B, K) of the auxiliary model, of the ancestor's size; train it like any other.

    Templates start as timm starts a layer, norms and biases so that every layer has timm's; with ``ancestor`` (ours,
    the counterpart of the closed-form start of templates) all start at the mixture closest to the ancestor in least
    squares, and embeddings, final norm and classifier as copies. Only scalers are fixed.
    """

    def __init__(self, name: str, rule: Rule, family: Family, seed: int = 0, ancestor: nn.Module | None = None) -> None:
        super().__init__()
        self.name, self.rule, self.family = name, rule, family
        depth = family.size.depth
        scalers = rule(depth)
        self.count = scalers.shape[1]
        self.spec = full_size_spec(family, self.count)
        with seeded(seed):
            plain = family.create(family.size)
            layers = dense(family.create(TargetSpec(family.size.embed_dim, self.count)))
        if ancestor is not None:
            plain.load_state_dict(dense(ancestor))
        stacks, _ = stack_layers(dense(plain), depth)
        fitted = {name: fit(scalers, stack) for name, stack in stacks.items()}
        if ancestor is None:
            drawn, _ = stack_layers(layers, self.count)
            fitted |= {name: drawn[name] for name in KIND_OF}
        self.auxiliary = templated(plain, TemplateBank(self.spec, {k: fitted[n] for n, k in KIND_OF.items()}))
        for i, _, holder, attribute in linears(self.auxiliary):
            layer = cast(TemplatedLinear, getattr(holder, attribute))
            layer.scalers.data = scalers[i].reshape(self.count, 1, 1).clone()
            layer.scalers.requires_grad_(False)
        self.small = nn.ModuleList(
            nn.ParameterDict({n.replace(".", "/"): v[t].clone() for n, v in fitted.items() if n not in KIND_OF})
            for t in range(self.count)
        )
        self._bind(detach=True)

    def small_tensors(self, depth: int) -> dict[str, Tensor]:
        """Norms, biases and layer scales of all layers of a model of that depth, by their names in the model."""
        parts = [cast(nn.ParameterDict, part) for part in self.small]
        stacks = {key.replace("/", "."): torch.stack([part[key] for part in parts]) for key in parts[0]}
        result: dict[str, Tensor] = {}
        for name, stack in stacks.items():
            for i, value in enumerate(self.rule(depth).to(stack.device) @ stack):
                result[f"blocks.{i}.{name}"] = value
        return result

    def _bind(self, detach: bool = False) -> None:
        small = self.small_tensors(self.family.size.depth)
        bind(self.auxiliary, {k: v.detach() if detach else v for k, v in small.items()})

    def forward(self, images: Tensor) -> Tensor:
        self._bind()
        logits: Tensor = self.auxiliary(images)
        return logits

    def __getstate__(self) -> dict[str, object]:
        self._bind(detach=True)  # tensors that carry a graph can be neither copied nor pickled
        return self.__dict__.copy()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass."""
        self.auxiliary.set_grad_checkpointing(enable)

    @torch.no_grad()
    def state(self, target: TargetSpec, seed: int) -> dict[str, Tensor]:
        """The plain state dict of a model of any depth: the rule at that depth, applied to the trained templates.

        Embeddings, final norm, and the classifier when the classes are equal, are those of the auxiliary model.
        """
        check_reach(self.name, depth_only, self.family, target)
        shared = {k: v for k, v in self.auxiliary.named_parameters() if not k.startswith(("blocks.", f"{BANK}."))}
        state = {**shared, **self.small_tensors(target.depth)}
        bank = cast(TemplateBank, self.auxiliary.get_submodule(BANK))
        for i, row in enumerate(self.rule(target.depth)):
            for name, kind in KIND_OF.items():
                templates = bank(kind)
                scalers = row.reshape(-1, 1, 1).to(templates.device)
                state[f"blocks.{i}.{name}"] = kron_sum(templates, scalers, self.spec.order)
        return complete(state, self.family, target, seed)


def stage1_baseline(name: str, rule_of: Callable[[Family], Rule]) -> Baseline:
    """The :class:`Baseline` of a rule; ``rule_of(family)`` may depend on the depth of the auxiliary model."""

    def stage1(family: Family, seed: int = 0, ancestor: nn.Module | None = None) -> Stage1:
        return Stage1(name, rule_of(family), family, seed, ancestor)

    def initialise(
        ancestor: nn.Module, family: Family, target: TargetSpec, seed: int, batches: Batches | None = None
    ) -> dict[str, Tensor]:
        if not isinstance(ancestor, Stage1) or ancestor.name != name:
            given = ancestor.name if isinstance(ancestor, Stage1) else type(ancestor).__name__
            raise WaveError(
                f"{name} reads its own trained stage 1, not {given}: train BASELINES[{name!r}].stage1(family)"
            )
        return ancestor.state(target, seed)

    return Baseline(name, initialise, depth_only, stage1=stage1)
