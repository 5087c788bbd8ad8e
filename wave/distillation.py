"""Stage 1 in one call: any timm ViT and any iterable of images in, weight templates out (ours)."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .canonical_form import canonical
from .condensation import condense
from .errors import WaveError
from .family import Family
from .multisize import MultiSize, SizeSampler, inverse_cost
from .progress import Metrics
from .recipe import Batch, Recipe
from .resampling import Resampling, resample
from .spec import KINDS, Kind, TargetSpec
from .storage import Templates
from .teacher import Teacher
from .template_spec import TemplateSpec
from .train import Trainer
from .typed import patch_embedding_of

TOKENS = 8192
"""Tokens of the ancestor that decide which of its channels, heads and hidden units carry most."""
WARMUP_SHARE = 0.02

Loader = Iterable[Any]
"""Batches of images (B, C, H, W), or of (images, labels); it is read again when it ends."""


def distil(
    model: nn.Module,
    loader: Loader,
    sizes: Sequence[TargetSpec] | None = None,
    *,
    steps: int = 2000,
    templates: int = 64,
    recipe: Recipe | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: Callable[[Metrics], object] | None = None,
) -> Templates:
    """Distil a trained timm Vision Transformer into weight templates.

    One size is drawn in every step, cheap ones more often. With labels, the loss goes from the
    ancestor's logits to the labels (teacher annealing, Clark et al., ACL 2019); without, it is the
    ancestor's logits alone.

    Args:
        model: The ancestor, with trained weights and a classifier. It is not changed.
        loader: An iterable of images (B, C, H, W), normalised as the ancestor reads them, or of
            (images, labels). Read again from its start as often as ``steps`` needs; a
            ``DataLoader`` or a list of batches will do, a generator will not.
        sizes: The sizes to draw. Later, any size between them is good without training. By
            default, whole heads and layers from half to one and a half times the ancestor's.
        steps: Optimiser steps, at least 1.
        templates: Templates per kind of matrix (qkv, proj, fc1, fc2), at most as many as the
            ancestor has blocks of head_dim x head_dim.
        recipe: Optimiser and losses; ``steps`` and ``batch_size`` of it are not read. By default
            AdamW at 1e-3, falling as a cosine.
        seed: Decides which sizes are drawn.
        device: Where to train; by default a GPU if there is one.
        progress: Called with :class:`wave.Metrics` about fifty times.

    Returns:
        Templates, to be given to :func:`wave.initialise` or saved.

    Raises:
        WaveError: The model is not supported, a size cannot be built, or the loader gives no
            images or cannot be read twice.

    >>> import timm
    >>> from wave import initialise
    >>> model = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32, num_classes=10)
    >>> images = [torch.randn(8, 3, 32, 32) for _ in range(4)]
    >>> templates = distil(model, images, [TargetSpec(128, 2)], steps=2, templates=8, device="cpu")
    >>> initialise(templates, TargetSpec(64, 3)).embed_dim
    64
    """
    fastest = "cuda" if torch.cuda.is_available() else "cpu"
    where = torch.device(device or fastest)
    read = _Batches(loader)
    first = next(iter(read(0)))
    labelled = read.labelled
    if steps < 1:
        raise WaveError(f"steps={steps} must be at least 1")
    form = canonical(model, _some_images(read, model))
    family, options = Family.of(form), Resampling(seed=seed)
    spec = _spec(family, templates)
    wanted = default_sizes(family) if sizes is None else sizes
    targets = [family.resolve(size) for size in wanted]
    for target in targets:
        spec.check(spec.shape(target))
    auxiliary = condense(form, spec, options=options, seed=seed)
    student = MultiSize(auxiliary, family, size=family.size, options=options).to(where)
    channels = first.images.shape[1]
    teacher = Teacher(form, [0.0] * channels, [1.0] * channels).to(where)
    used = recipe or _recipe(steps, labelled=labelled)
    if used.ce_weight and not labelled:
        raise WaveError(
            "the recipe has ce_weight above 0, and the loader gives images alone; set it to 0"
        )
    sampler = None
    if targets:
        sampler = SizeSampler(targets, seed=seed, weights=inverse_cost(targets))
    trainer = Trainer(
        student,
        used,
        steps,
        teacher=teacher,
        sampler=sampler,
        annealing=used.kl_weight > 0 and used.ce_weight > 0,
        num_classes=form.num_classes,
        seed=seed,
        device=where,
    )
    for metrics in trainer.run(read):
        if progress is not None:
            progress(metrics)
    trained = trainer.result
    if not isinstance(trained, MultiSize):
        raise TypeError(f"trained {type(trained).__name__} instead of a MultiSize")
    info: dict[str, Any] = {
        "ancestor": {"architecture": family.architecture},
        "metrics": {"steps": steps},
    }
    return Templates.of(trained.auxiliary, family, options, info)


def resize(
    model: nn.Module, target: TargetSpec, images: Tensor, options: Resampling | None = None
) -> VisionTransformer:
    """A trained timm model at another size, by its canonical form, without training (ours).

    For people who have a minute and a few hundred images. Narrow models keep the channels, heads
    and hidden units that carry most; widening by a whole multiple preserves the function.
    :func:`distil` gives better models, above all small ones.

    Args:
        model: The trained timm model. It is not changed.
        target: The size wanted; ``None`` in it means as ``model``.
        images: (B, C, H, W), normalised as ``model`` reads them; a few hundred are enough.
        options: How layers and channels are mapped; see :class:`wave.Resampling`.

    Raises:
        WaveError: The model is not supported, or the size is not whole heads or patches.
    """
    form = canonical(model, images)
    family = Family.of(form)
    spec = TemplateSpec.uniform(family.head_dim, 1, mlp_ratio=family.mlp_ratio)
    full = family.resolve(target)
    resized = family.create(full)
    options = options or Resampling()
    state = resample(form.state_dict(), family.size, target=full, spec=spec, options=options)
    resized.load_state_dict(state, strict=family.size.num_classes == full.num_classes)
    return resized.train(model.training)


def default_sizes(family: Family) -> list[TargetSpec]:
    """Whole heads and layers from half to 1.5 times the ancestor's, at most six of each."""
    heads = _spread(family.size.embed_dim // family.head_dim)
    layers = _spread(family.size.depth)
    return [TargetSpec(n * family.head_dim, depth) for depth in layers for n in heads]


def _spread(middle: int, most: int = 6) -> list[int]:
    """At most ``most`` whole numbers, evenly spaced from half of ``middle`` to 1.5 times it."""
    low, high = max(1, middle // 2), max(1, middle + middle // 2)
    count = min(most, high - low + 1)
    return sorted({round(low + (high - low) * i / max(count - 1, 1)) for i in range(count)})


def _spec(family: Family, templates: int) -> TemplateSpec:
    """``templates`` per kind, fewer where the ancestor has fewer blocks."""
    spec = TemplateSpec.uniform(family.head_dim, templates, mlp_ratio=family.mlp_ratio)
    shape = spec.shape(family.size)
    counts: dict[Kind, int] = {}
    for kind in KINDS:
        blocks = family.size.depth * math.prod(spec.grid(kind, shape))
        counts[kind] = min(templates, blocks)
    return replace(spec, counts=counts)


def _recipe(steps: int, *, labelled: bool) -> Recipe:
    return Recipe(
        steps=steps,
        warmup_steps=int(steps * WARMUP_SHARE),
        ce_weight=1.0 if labelled else 0.0,
        log_every=max(1, steps // 50),
    )


def _some_images(read: "_Batches", model: nn.Module) -> Tensor:
    """As many images as make about :data:`TOKENS` tokens, fewer where the loader has fewer."""
    tokens = max(1, patch_embedding_of(model).num_patches)
    wanted = math.ceil(TOKENS / tokens)
    found: list[Tensor] = []
    for batch in read.once():
        found.append(batch.images)
        wanted -= len(batch.images)
        if wanted <= 0:
            break
    return torch.cat(found)


class _Batches:
    """``batches(step)`` of a loader, as :class:`wave.train.Trainer` reads them: without end."""

    def __init__(self, loader: Loader) -> None:
        if iter(loader) is loader:
            raise WaveError(
                "the loader can be read only once; give one that starts again, as a DataLoader does"
            )
        self.loader = loader
        self.labelled = False

    def once(self) -> Iterator[Batch]:
        """The loader's batches from its start to its end."""
        for item in self.loader:
            yield self._batch(item)

    def __call__(self, start_step: int) -> Iterator[Batch]:
        while True:
            batch = None
            for batch in self.once():
                yield batch
            if batch is None:
                raise WaveError(
                    "the loader gives no batch; give images (B, C, H, W), or (images, labels)"
                )

    def _batch(self, item: Any) -> Batch:
        images, *rest = [item] if isinstance(item, Tensor) else item
        if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point():
            what = type(images).__name__
            if isinstance(images, Tensor):
                what = f"{images.dtype} {tuple(images.shape)}"
            raise WaveError(f"the loader gives {what}; images must be a float tensor (B, C, H, W)")
        self.labelled = bool(rest)
        labels = rest[0] if rest else torch.zeros(len(images), dtype=torch.long)
        return Batch(images, labels)
