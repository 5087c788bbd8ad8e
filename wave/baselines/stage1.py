"""Stage1: auxiliary models whose layers are fixed mixtures of a few full-size blocks.

``W[l] = sum_t S[l, t] * T[t]``: the equation of WAVE with full-size templates and 1 x 1 scalers
that a rule sets and nobody trains. TLEG, SWS and one shared block are the three rules. As in their
released code, the mixture holds for all tensors of a block: the four matrices are templates of a
:class:`wave.TemplateBank`; norms, biases and layer scales are mixed by the same scalers.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..bank import TemplateBank
from ..errors import WaveError
from ..family import Family
from ..kron import kron_sum
from ..linear import TemplatedLinear
from ..multisize import bind
from ..seeding import seeded
from ..spec import AXES, KINDS, Kind, TargetSpec
from ..template_spec import TemplateSpec
from ..train import Batches
from ..typed import parameter_dict
from ..vit import BANK, PATHS, bank_of, linears, templated
from .base import (
    Baseline,
    check_reach,
    complete_state,
    dense_state,
    depth_only,
    shape_rules,
    stack_layers,
)

Rule = Callable[[int], Tensor]
"""``rule(L)``: the scalers of a model of depth L, (L, N) float32."""

KIND_OF: dict[str, Kind] = {".".join((*PATHS[kind], "weight")): kind for kind in KINDS}


def full_size_spec(family: Family, count: int) -> TemplateSpec:
    """Return a spec of ``count`` templates per kind, each as large as the ancestor's matrix."""
    shape = shape_rules(family).shape(family.size)
    blocks: dict[Kind, tuple[int, int]] = {}
    for kind in KINDS:
        rows, columns = AXES[kind]
        blocks[kind] = (shape.length(rows), shape.length(columns))
    counts: dict[Kind, int] = dict.fromkeys(KINDS, count)
    return TemplateSpec(blocks, counts, head_dim=family.head_dim, mlp_ratio=family.mlp_ratio)


def fit(scalers: Tensor, stack: Tensor) -> Tensor:
    """Return the templates whose mixtures are closest to a stack, by least squares.

    Args:
        scalers: (L, N).
        stack: (L, ...).

    Returns:
        (N, ...).
    """
    return (torch.pinverse(scalers) @ stack.flatten(1)).reshape(-1, *stack.shape[1:])


class Stage1(nn.Module):
    """``model(images)`` gives logits (B, K) of the auxiliary model; train it like any other.

    It has the ancestor's size. Only the scalers are fixed.

    Args:
        name: The baseline's name.
        rule: Gives the scalers.
        family: The ancestor's family.
        seed: For what is drawn.
        ancestor: With it, everything starts at the mixture closest to the ancestor in least
            squares, and embeddings, final norm and classifier as copies (ours, the counterpart of
            the closed-form start of templates). Without it, templates start as timm starts a
            layer, and norms and biases so that every layer has timm's.
    """

    def __init__(
        self,
        name: str,
        rule: Rule,
        family: Family,
        seed: int = 0,
        ancestor: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.rule = rule
        self.family = family
        depth = family.size.depth
        scalers = rule(depth)
        self.count = scalers.shape[1]
        self.spec = full_size_spec(family, self.count)
        with seeded(seed):
            plain = family.create(family.size)
            layers = dense_state(family.create(TargetSpec(family.size.embed_dim, self.count)))
        if ancestor is not None:
            plain.load_state_dict(dense_state(ancestor))
        stacks, _ = stack_layers(dense_state(plain), depth)
        fitted = {name: fit(scalers, stack) for name, stack in stacks.items()}
        if ancestor is None:
            # A fit to independent layers would average them: the mean of N draws is too small.
            drawn, _ = stack_layers(layers, self.count)
            fitted |= {name: drawn[name] for name in KIND_OF}
        templates: dict[Kind, Tensor] = {kind: fitted[name] for name, kind in KIND_OF.items()}
        self.auxiliary = templated(plain, TemplateBank(self.spec, templates))
        for i, _, holder, attribute in linears(self.auxiliary):
            layer: TemplatedLinear = getattr(holder, attribute)
            layer.scalers.data = scalers[i].reshape(self.count, 1, 1).clone()
            layer.scalers.requires_grad_(False)
        small = {_key(name): stack for name, stack in fitted.items() if name not in KIND_OF}
        self.small = nn.ModuleList(
            nn.ParameterDict({key: stack[t].clone() for key, stack in small.items()})
            for t in range(self.count)
        )
        self._bind(detach=True)

    def small_tensors(self, depth: int) -> dict[str, Tensor]:
        """Return norms, biases and layer scales of all layers of a model of some depth, by name."""
        parts = [parameter_dict(self.small, t) for t in range(self.count)]
        result: dict[str, Tensor] = {}
        for key in parts[0]:
            stack = torch.stack([part[key] for part in parts])
            mixed = self.rule(depth).to(stack.device) @ stack
            for i, value in enumerate(mixed):
                result[f"blocks.{i}.{_name(key)}"] = value
        return result

    def _bind(self, detach: bool = False) -> None:
        small = self.small_tensors(self.family.size.depth)
        if detach:
            small = {name: tensor.detach() for name, tensor in small.items()}
        bind(self.auxiliary, small)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K)."""
        self._bind()
        logits: Tensor = self.auxiliary(images)
        return logits

    def __getstate__(self) -> dict[str, object]:
        # Tensors that carry a graph can be neither copied nor pickled.
        self._bind(detach=True)
        return self.__dict__.copy()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass."""
        self.auxiliary.set_grad_checkpointing(enable)

    @torch.no_grad()
    def state(self, target: TargetSpec, seed: int) -> dict[str, Tensor]:
        """Return the plain state dict of a model of any depth: the rule at that depth.

        Embeddings, final norm, and the classifier when the classes are equal, are those of the
        auxiliary model.
        """
        check_reach(self.name, depth_only, family=self.family, target=target)
        own = ("blocks.", f"{BANK}.")
        parameters = self.auxiliary.named_parameters()
        state: dict[str, Tensor] = {k: v for k, v in parameters if not k.startswith(own)}
        state |= self.small_tensors(target.depth)
        bank = bank_of(self.auxiliary)
        for i, row in enumerate(self.rule(target.depth)):
            for name, kind in KIND_OF.items():
                templates = bank(kind)
                scalers = row.reshape(-1, 1, 1).to(templates.device)
                state[f"blocks.{i}.{name}"] = kron_sum(templates, scalers, order=self.spec.order)
        return complete_state(state, self.family, target=target, seed=seed)


def _key(name: str) -> str:
    """A tensor's name as a ParameterDict takes it, without dots."""
    return name.replace(".", "/")


def _name(key: str) -> str:
    """The inverse of :func:`_key`."""
    return key.replace("/", ".")


def stage1_baseline(name: str, rule_of: Callable[[Family], Rule]) -> Baseline:
    """Return the :class:`Baseline` of a rule.

    Args:
        name: The baseline's name.
        rule_of: Gives the rule of a family; it may depend on the auxiliary model's depth.
    """

    def stage1(family: Family, seed: int = 0, ancestor: nn.Module | None = None) -> Stage1:
        return Stage1(name, rule_of(family), family=family, seed=seed, ancestor=ancestor)

    def initialise(
        ancestor: nn.Module,
        family: Family,
        target: TargetSpec,
        seed: int,
        batches: Batches | None = None,
    ) -> dict[str, Tensor]:
        if not isinstance(ancestor, Stage1) or ancestor.name != name:
            given = ancestor.name if isinstance(ancestor, Stage1) else type(ancestor).__name__
            raise WaveError(
                f"{name} reads its own trained stage 1, not {given}: "
                f"train BASELINES[{name!r}].stage1(family)"
            )
        return ancestor.state(target, seed)

    return Baseline(name, initialise, reach=depth_only, stage1=stage1)
