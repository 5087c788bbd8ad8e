"""MultiSize: the auxiliary model and any further sizes in one forward, all reading one set of parameters (ours).

The scalers and small tensors of a further size are resampled from the auxiliary ones in every forward, with the
gradient flowing through the map. Its modules are a *skeleton* without parameters, built once, into which the resampled
tensors are bound as plain attributes (they stay bound until the next forward, so activation checkpointing can
recompute). DDP sees one forward, one backward, and each parameter once.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .bank import TemplateBank
from .errors import WaveError
from .family import Family
from .features import Features, Match, distance, read
from .resampling import Resampling, resample
from .spec import TargetSpec
from .vit import BANK, own_state, templated


class MultiSize(nn.Module):
    """``model(images, targets)`` gives the logits (B, K) of each target, in that order.

    With the ancestor's features for these images, also their mean :func:`wave.features.distance` from the targets'.
    ``auxiliary`` is a templated model of ``family``, the ancestor's. Where there is no target, or with ``always=True``,
    it reads the images too, and its logits come first. Raises :class:`WaveError` for a target the templates cannot
    build and for one with other classes or images, which cannot read the same batch.
    """

    def __init__(
        self,
        auxiliary: VisionTransformer,
        family: Family,
        size: TargetSpec,
        options: Resampling,
        *,
        always: bool = False,
    ) -> None:
        super().__init__()
        self.always = always
        self.auxiliary = auxiliary
        self.family = family
        self.size = family.resolve(size)
        self.options = options
        self.checkpoint_activations = False
        self._skeletons: dict[TargetSpec, VisionTransformer] = {}
        self._matches: dict[TargetSpec, Match] = {}

    def forward(
        self, images: Tensor, targets: Sequence[TargetSpec] = (), ancestor: Features | None = None
    ) -> list[Tensor] | tuple[list[Tensor], Tensor]:
        if ancestor is None:
            return self._anchored([model(images) for _, model in self._models(targets)])
        found = [(size, read(model, images)) for size, model in self._models(targets)]
        apart = [distance(features, ancestor, self._match(size)) for size, features in found]
        return self._anchored([features.logits for _, features in found]), torch.stack(apart).mean()

    def _anchored(self, logits: list[Tensor]) -> list[Tensor]:
        """DDP wants a gradient of every parameter: layers that no target reads get zero."""
        return [logits[0] + 0 * sum(p.sum() for p in self.parameters()), *logits[1:]]

    def _models(self, targets: Sequence[TargetSpec]) -> Iterator[tuple[TargetSpec, VisionTransformer]]:
        if self.always or not targets:
            yield self.size, self.auxiliary
        for target in targets:
            yield self.family.resolve(target), self._bound(target)

    def _match(self, target: TargetSpec) -> Match:
        if target not in self._matches:
            spec = cast(TemplateBank, self.auxiliary.get_submodule(BANK)).spec
            self._matches[target] = Match.of(self.family.size, self.size, target, spec, self.options)
        return self._matches[target]

    def _bound(self, target: TargetSpec) -> VisionTransformer:
        full = self.family.resolve(target)
        if (full.num_classes, full.img_size) != (self.size.num_classes, self.size.img_size):
            raise WaveError(
                f"size {target.name} has {full.num_classes} classes and {full.img_size} pixels; sizes trained together "
                f"share the batch of {self.size.num_classes} classes and {self.size.img_size} pixels"
            )
        bank = cast(TemplateBank, self.auxiliary.get_submodule(BANK))
        state = resample(own_state(self.auxiliary), self.size, full, bank.spec, self.options)
        if full not in self._skeletons:
            plain = self.family.create(full, device="meta")
            self._skeletons[full] = templated(plain, bank)
        skeleton = self._skeletons[full]
        skeleton.train(self.training)
        skeleton.set_grad_checkpointing(self.checkpoint_activations)
        bind(skeleton, state)
        return skeleton

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass, at every size."""
        self.checkpoint_activations = enable
        self.auxiliary.set_grad_checkpointing(enable)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_skeletons": {}}


def bind(skeleton: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Set the tensors of ``state`` as plain attributes in place of the skeleton's parameters of those names."""
    for name, tensor in state.items():
        path, _, leaf = name.rpartition(".")
        module = skeleton.get_submodule(path)
        if leaf in dict(module.named_parameters(recurse=False)):
            delattr(module, leaf)
        setattr(module, leaf, tensor)


class SizeSampler:
    """``sampler(step)``: the further sizes of one step, the same on every worker and after a resume.

    Each step draws ``per_step`` different sizes, with equal chance or in proportion to ``weights``.
    """

    def __init__(
        self, targets: Sequence[TargetSpec], per_step: int = 1, seed: int = 0, weights: Sequence[float] | None = None
    ) -> None:
        if per_step < 1:
            raise WaveError(f"per_step={per_step} must be at least 1")
        self.targets = list(targets)
        self.weights = torch.tensor(weights or [1.0] * len(self.targets))
        self.per_step = min(per_step, len(self.targets))
        self.seed = seed

    def __call__(self, step: int) -> list[TargetSpec]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        if not self.targets:
            return []
        order = torch.multinomial(self.weights, self.per_step, generator=generator)
        return [self.targets[int(i)] for i in order]


def inverse_cost(targets: Sequence[TargetSpec], power: float = 0.75) -> list[float]:
    """Weights ``(depth * embed_dim^2)^-power``: by 1 every size takes about an equal share of the computing, by 0 every
    size has the same chance; the default is measured (docs/tried.md)."""
    return [(target.depth * target.embed_dim**2) ** -power for target in targets]
