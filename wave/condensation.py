"""The start of stage 1: templates and the auxiliary model, from the ancestor or at random."""

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .bank import TemplateBank
from .errors import WaveError
from .family import Family
from .kron import fit_templates
from .resampling import Resampling, resample
from .seeding import exactly_seeded
from .spec import KINDS, Kind, TargetSpec
from .template_spec import TemplateSpec
from .vit import PATHS, linears, templated


@torch.no_grad()
def closed_form(
    ancestor: nn.Module, spec: TemplateSpec
) -> tuple[dict[Kind, Tensor], dict[str, Tensor]]:
    """Find the templates whose model of the ancestor's size is closest to the ancestor (ours).

    Closest in Frobenius norm, over all layers of a kind together (:func:`wave.kron.fit_templates`).
    Biases, norms, embeddings and classifier are copied.

    Returns:
        Templates (N, a, b) by kind, and the auxiliary model's own state.

    Raises:
        WaveError: A kind has fewer blocks than templates.
    """
    weights: dict[Kind, list[Tensor]] = {kind: [] for kind in KINDS}
    for _, kind, holder, name in linears(ancestor):
        weights[kind].append(getattr(holder, name).weight.detach().float())
    dense = {f"{holder}.{name}.weight" for holder, name in PATHS.values()}
    state: dict[str, Tensor] = {}
    for name, value in ancestor.named_parameters():
        name_in_block = name.split(".", 2)[-1]
        if name_in_block not in dense:
            state[name] = value.detach().float().clone()
    templates: dict[Kind, Tensor] = {}
    for kind in KINDS:
        _check_count(kind, weights[kind], spec=spec)
        block, count = spec.blocks[kind], spec.counts[kind]
        templates[kind], scalers = fit_templates(
            weights[kind], block, count=count, order=spec.order
        )
        holder, name = PATHS[kind]
        for layer, value in enumerate(scalers):
            state[f"blocks.{layer}.{holder}.{name}.scalers"] = value
    return templates, state


def _check_count(kind: Kind, weights: list[Tensor], spec: TemplateSpec) -> None:
    """More templates than blocks cannot be told apart by the weights."""
    a, b = spec.blocks[kind]
    available = sum(weight.numel() // (a * b) for weight in weights)
    if spec.counts[kind] > available:
        raise WaveError(
            f"{kind}: {spec.counts[kind]} templates of {a}x{b}, but the ancestor has {available} "
            f"blocks; use at most {available}"
        )


def condense(
    ancestor: nn.Module,
    spec: TemplateSpec,
    *,
    start: str = "svd",
    size: TargetSpec | None = None,
    options: Resampling | None = None,
    seed: int = 0,
) -> VisionTransformer:
    """Create the auxiliary model, ready for stage 1.

    Args:
        ancestor: A trained timm model, which is not changed.
        spec: Shape and number of the templates.
        start: ``svd`` condenses the ancestor in closed form; ``random`` draws templates, scalers
            and everything else anew.
        size: The auxiliary model's size; by default the ancestor's.
        options: How it is read off the ancestor's size where the two differ.
        seed: For everything that is drawn.

    Returns:
        A templated model; its templates are ``model.templates``.

    Raises:
        WaveError: The templates cannot build the size, or the model is not supported.

    >>> import timm
    >>> ancestor = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32)
    >>> auxiliary = condense(ancestor, TemplateSpec.uniform(head_dim=64, count=8))
    >>> auxiliary.get_submodule("templates")("fc1").shape
    torch.Size([8, 64, 64])
    """
    family = Family.of(ancestor)
    target = family.resolve(size or family.size)
    for own in (family.size, target):
        spec.check(spec.shape(own), whole=True)
    with exactly_seeded(seed):
        plain = family.create(target)
        if start == "random":
            return templated(plain, TemplateBank(spec))
        if start != "svd":
            raise WaveError(f"start={start!r} is unknown; use svd or random")
        tensors, state = closed_form(ancestor, spec)
        model = templated(plain, TemplateBank(spec, tensors))
    if target != family.size:
        options = options or Resampling()
        state = resample(state, family.size, target=target, spec=spec, options=options)
    model.load_state_dict(state, strict=False)
    return model
