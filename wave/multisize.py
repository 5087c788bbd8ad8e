"""MultiSize: the auxiliary model and further sizes in one forward, reading one set of parameters.

The paper trains one auxiliary model in stage 1; training sampled sizes beside it is ours. In every
forward, the scalers and small tensors of a further size are resampled from the auxiliary model's,
and the gradient flows back through the map. DDP sees one forward, one backward, and each parameter
once.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .errors import WaveError
from .family import Family
from .features import Features, Match, distance, read
from .resampling import Resampling, resample
from .spec import TargetSpec
from .vit import bank_of, own_state, templated


class MultiSize(nn.Module):
    """``model(images, targets)`` gives the logits (B, K) of each target, in that order.

    Given the ancestor's features of these images, it also gives the mean distance of the targets'
    features from them (:func:`wave.features.distance`).

    Args:
        auxiliary: A templated model (:func:`wave.condense`).
        family: The ancestor's family.
        size: The size of ``auxiliary``.
        options: How further sizes are read off ``auxiliary``.
        always: Whether ``auxiliary`` reads the images too when there are targets; its logits then
            come first. Without a target it always does.

    Raises:
        WaveError: In a forward, for a target that the templates cannot build, and for one with
            other classes or images, which cannot read the same batch.
    """

    # A further size is a "skeleton": modules without parameters, built once, into which resampled
    # tensors are bound as plain attributes. functional_call would undo the binding at the end of
    # the forward, and activation checkpointing recomputes after that.

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
        """Return logits, and the distance of features where ``ancestor`` is given."""
        if ancestor is None:
            return self._anchored([model(images) for _, model in self._models(targets)])
        found = [(size, read(model, images)) for size, model in self._models(targets)]
        distances = [
            distance(features, ancestor, match=self._match(size)) for size, features in found
        ]
        logits = self._anchored([features.logits for _, features in found])
        return logits, torch.stack(distances).mean()

    def _anchored(self, logits: list[Tensor]) -> list[Tensor]:
        """DDP wants a gradient of every parameter: layers that no target reads get zero."""
        return [logits[0] + 0 * sum(p.sum() for p in self.parameters()), *logits[1:]]

    def _models(
        self, targets: Sequence[TargetSpec]
    ) -> Iterator[tuple[TargetSpec, VisionTransformer]]:
        if self.always or not targets:
            yield self.size, self.auxiliary
        for target in targets:
            yield self.family.resolve(target), self._bound(target)

    def _match(self, target: TargetSpec) -> Match:
        if target not in self._matches:
            self._matches[target] = Match.of(
                self.family.size,
                self.size,
                target=target,
                spec=bank_of(self.auxiliary).spec,
                options=self.options,
            )
        return self._matches[target]

    def _bound(self, target: TargetSpec) -> VisionTransformer:
        """The skeleton of a size with its tensors bound, until the next forward."""
        full = self.family.resolve(target)
        self._check_batch(target, full)
        bank = bank_of(self.auxiliary)
        own = own_state(self.auxiliary)
        state = resample(own, self.size, target=full, spec=bank.spec, options=self.options)
        if full not in self._skeletons:
            plain = self.family.create(full, device="meta")
            self._skeletons[full] = templated(plain, bank)
        skeleton = self._skeletons[full]
        skeleton.train(self.training)
        skeleton.set_grad_checkpointing(self.checkpoint_activations)
        bind(skeleton, state)
        return skeleton

    def _check_batch(self, target: TargetSpec, full: TargetSpec) -> None:
        own = self.size
        if (full.num_classes, full.img_size) != (own.num_classes, own.img_size):
            raise WaveError(
                f"size {target.name} has {full.num_classes} classes and {full.img_size} pixels; "
                f"sizes trained together share the batch of {own.num_classes} classes and "
                f"{own.img_size} pixels"
            )

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass, at every size."""
        self.checkpoint_activations = enable
        self.auxiliary.set_grad_checkpointing(enable)

    def __getstate__(self) -> dict[str, object]:
        # Bound tensors carry a graph and cannot be pickled; skeletons are built again.
        return {**self.__dict__, "_skeletons": {}}


def bind(skeleton: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Set tensors as plain attributes, in place of the skeleton's parameters of those names."""
    for name, tensor in state.items():
        path, _, leaf = name.rpartition(".")
        module = skeleton.get_submodule(path)
        # A parameter's place takes nothing but parameters, which would cut the graph.
        if leaf in dict(module.named_parameters(recurse=False)):
            delattr(module, leaf)
        setattr(module, leaf, tensor)


class SizeSampler:
    """``sampler(step)`` gives the further sizes of one step (ours).

    They depend on the step alone: the same on every worker and after a resume.

    Args:
        targets: The sizes to draw from.
        per_step: How many different ones each step draws, at least 1.
        seed: Where they are drawn from.
        weights: Chances in proportion; by default equal.

    Raises:
        WaveError: ``per_step`` is less than 1.

    >>> sampler = SizeSampler([TargetSpec(64, 4), TargetSpec(96, 6), TargetSpec(128, 8)])
    >>> sampler(17) == sampler(17), len(sampler(18))
    (True, 1)
    """

    def __init__(
        self,
        targets: Sequence[TargetSpec],
        per_step: int = 1,
        seed: int = 0,
        weights: Sequence[float] | None = None,
    ) -> None:
        if per_step < 1:
            raise WaveError(f"per_step={per_step} must be at least 1")
        self.targets = list(targets)
        self.weights = torch.tensor(weights or [1.0] * len(self.targets))
        self.per_step = min(per_step, len(self.targets))
        self.seed = seed

    def __call__(self, step: int) -> list[TargetSpec]:
        """Return the sizes of one step."""
        if not self.targets:
            return []
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        order = torch.multinomial(self.weights, self.per_step, generator=generator)
        return [self.targets[int(i)] for i in order]


def inverse_cost(targets: Sequence[TargetSpec], power: float = 0.75) -> list[float]:
    """Return weights ``(depth * embed_dim^2)^-power`` for :class:`SizeSampler` (ours).

    Args:
        targets: The sizes.
        power: 0 gives all sizes the same chance, 1 about the same share of the computing. The
            default is measured (docs/tried.md).

    >>> inverse_cost([TargetSpec(64, 4), TargetSpec(64, 8)], power=1.0)
    [6.103515625e-05, 3.0517578125e-05]
    """
    return [(target.depth * target.embed_dim**2) ** -power for target in targets]
