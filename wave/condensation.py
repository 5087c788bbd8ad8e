"""The start of stage 1: templates and the auxiliary model, in closed form from the ancestor or from random numbers."""

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .bank import TemplateBank
from .errors import WaveError
from .family import Family
from .kron import fit_templates
from .resampling import Resampling, resample
from .spec import KINDS, Kind, TargetSpec, TemplateSpec
from .vit import PATHS, linears, templated


@torch.no_grad()
def closed_form(ancestor: nn.Module, spec: TemplateSpec) -> tuple[dict[Kind, Tensor], dict[str, Tensor]]:
    """Templates per kind and the own state of a model of the ancestor's size that is closest to it (ours).

    Closest in Frobenius norm, all layers of a kind together (:func:`wave.kron.fit_templates`); biases, norms,
    embeddings and head are copied. Raises :class:`WaveError` when a kind has fewer blocks than templates.
    """
    weights: dict[Kind, list[Tensor]] = {kind: [] for kind in KINDS}
    for _, kind, holder, name in linears(ancestor):
        weights[kind].append(getattr(holder, name).weight.detach().float())
    dense = {f"{holder}.{name}.weight" for holder, name in PATHS.values()}
    state = {k: v.detach().float().clone() for k, v in ancestor.named_parameters() if k.split(".", 2)[-1] not in dense}
    templates: dict[Kind, Tensor] = {}
    for kind in KINDS:
        a, b = spec.blocks[kind]
        available = sum(w.numel() // (a * b) for w in weights[kind])
        if spec.counts[kind] > available:
            raise WaveError(
                f"{kind}: {spec.counts[kind]} templates of {a}x{b}, but the ancestor has {available} blocks; "
                f"use at most {available}"
            )
        templates[kind], scalers = fit_templates(weights[kind], (a, b), spec.counts[kind], spec.order)
        for layer, value in enumerate(scalers):
            state[f"blocks.{layer}.{'.'.join(PATHS[kind])}.scalers"] = value
    return templates, state


def condense(
    ancestor: nn.Module,
    spec: TemplateSpec,
    *,
    start: str = "svd",
    size: TargetSpec | None = None,
    options: Resampling | None = None,
    seed: int = 0,
) -> VisionTransformer:
    """The auxiliary model before stage 1: a templated model of ``size`` (default: the ancestor's).

    ``start="svd"`` condenses the ancestor in closed form, resampled when ``size`` differs; ``"random"`` draws
    templates, scalers and everything else anew. Raises :class:`WaveError` for what the templates cannot build.
    """
    family = Family.of(ancestor)
    target = family.resolve(size or family.size)
    for own in (family.size, target):
        spec.check(spec.shape(own), whole=True)
    with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
        torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType]
        plain = family.create(target)
        if start == "random":
            return templated(plain, TemplateBank(spec))
        if start != "svd":
            raise WaveError(f"start={start!r} is unknown; use svd or random")
        tensors, state = closed_form(ancestor, spec)
        model = templated(plain, TemplateBank(spec, tensors))
    if target != family.size:
        state = resample(state, family.size, target, spec, options or Resampling())
    model.load_state_dict(state, strict=False)
    return model
