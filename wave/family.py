"""Family: all sizes of one timm architecture, and what a trained model says of its own."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import timm
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from .errors import WaveError
from .shape import heads_of
from .spec import TargetSpec
from .vit import check_supported, head_dim_of, images_of, shape_of

SIZE_ARGUMENTS = ("embed_dim", "depth", "num_heads", "num_classes", "img_size", "patch_size", "device", "dtype")


@dataclass(frozen=True)
class Family:
    """All sizes of one architecture: a timm name, its extra arguments, and the full size of the ancestor."""

    architecture: str
    model_args: Mapping[str, object]
    size: TargetSpec
    head_dim: int
    mlp_ratio: float
    in_chans: int = 3

    @classmethod
    def of(cls, model: nn.Module) -> "Family":
        """The family of a model that timm created; raises :class:`WaveError` if it is not supported."""
        vit = check_supported(model)
        config = cast(dict[str, object], vit.pretrained_cfg or {})
        architecture = config.get("architecture")
        if not isinstance(architecture, str) or not timm.is_model(architecture):
            raise WaveError(f"the model does not say which timm architecture it is (pretrained_cfg: {architecture!r})")
        given = cast(dict[str, object], getattr(vit, "_model_args", {}))
        (height, width), patch, in_chans = images_of(vit)
        if height != width or patch[0] != patch[1]:
            raise WaveError(f"images of {height}x{width} and patches of {patch[0]}x{patch[1]}: both must be square")
        family = cls(
            architecture=architecture,
            model_args={k: v for k, v in given.items() if k not in (*SIZE_ARGUMENTS, "in_chans", "mlp_ratio")},
            size=replace(size := size_of(vit), num_heads=None, mlp_ratio=None),
            head_dim=head_dim_of(vit),
            mlp_ratio=cast(float, size.mlp_ratio),
            in_chans=in_chans,
        )
        family._check_same(vit)
        return family

    def _check_same(self, model: VisionTransformer) -> None:
        """Raise :class:`WaveError` unless these arguments give such a model again, here and where it is loaded."""
        for name, value in self.model_args.items():
            try:
                json.dumps(value)
            except TypeError:
                raise WaveError(
                    f"the model was created with {name}={value!r:.60}, which a saved model cannot say; give timm's "
                    "name, as in norm_layer='layernorm'"
                ) from None
        again = self.create(self.size, device="meta")
        pool, tensors = f"global_pool={model.global_pool!r}", set(again.state_dict()) ^ set(model.state_dict())
        if again.global_pool != model.global_pool or tensors:
            other = ", ".join(sorted(tensors)[:1]) or f"global_pool={again.global_pool!r} by its arguments"
            raise WaveError(
                f"the model was changed after timm.create_model ({other}); create it with what it is to have: {pool}"
            )

    def resolve(self, target: TargetSpec) -> TargetSpec:
        """The target with the ancestor's value in place of every ``None``, but ``num_heads`` and ``mlp_ratio`` None
        where they are as its own; raises :class:`WaveError` if the width is not a whole number of heads or the image
        not a whole number of patches."""
        missing = [k for k in ("num_classes", "img_size", "patch_size") if getattr(target, k) is None]
        full = replace(target, **{k: getattr(self.size, k) for k in missing})
        heads = heads_of(full.embed_dim, full.num_heads, self.head_dim)
        if heads * self.head_dim == full.embed_dim:
            full = replace(full, num_heads=None)
        if full.mlp_ratio and int(full.embed_dim * full.mlp_ratio) == int(full.embed_dim * self.mlp_ratio):
            full = replace(full, mlp_ratio=None)
        image, patch = cast(int, full.img_size), cast(int, full.patch_size)
        if image % patch:
            near = image // patch * patch or patch
            raise WaveError(f"img_size={image} is not a multiple of patch_size={patch}; try {near}")
        return full

    def model_arguments(self, target: TargetSpec) -> dict[str, object]:
        """Keyword arguments of ``timm.create_model`` for a size, JSON types."""
        full = self.resolve(target)
        return {
            **self.model_args,
            "embed_dim": full.embed_dim,
            "depth": full.depth,
            "num_heads": heads_of(full.embed_dim, full.num_heads, self.head_dim),
            "mlp_ratio": self.mlp_ratio if full.mlp_ratio is None else full.mlp_ratio,
            "in_chans": self.in_chans,
            "num_classes": full.num_classes,
            "img_size": full.img_size,
            "patch_size": full.patch_size,
        }

    def create(self, target: TargetSpec, device: str | None = None) -> VisionTransformer:
        """A plain timm model of that size with timm's random initialisation."""
        arguments = cast(dict[str, Any], self.model_arguments(target))
        model = timm.create_model(self.architecture, pretrained=False, **arguments, device=device)
        return check_supported(model)

    def to_json(self) -> dict[str, object]:
        """Plain JSON types; :meth:`from_json` is the inverse."""
        size = {k: getattr(self.size, k) for k in ("embed_dim", "depth", "num_classes", "img_size", "patch_size")}
        return {
            "architecture": self.architecture,
            "model_args": dict(self.model_args),
            "size": size,
            "head_dim": self.head_dim,
            "mlp_ratio": self.mlp_ratio,
            "in_chans": self.in_chans,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> "Family":
        """Raises :class:`WaveError` when a field is missing or of a wrong type, or timm has no such architecture."""
        try:
            family = cls(**cast(dict[str, Any], {**data, "size": TargetSpec(**cast(dict[str, int], data["size"]))}))
            dict(**family.model_args)
            if family.head_dim < 1 or family.in_chans < 1 or not timm.is_model(family.architecture):
                raise WaveError(f"timm has no architecture {family.architecture!r} with {family.in_chans} channels")
        except (KeyError, TypeError, AttributeError) as error:
            raise WaveError(f"model family is not valid: {error}") from None
        return family


def size_of(model: nn.Module) -> TargetSpec:
    """The full size of a plain or templated model with square images and patches, heads and MLP in numbers:
    :meth:`Family.resolve` leaves out what a family has anyway."""
    vit, ((height, _), (patch, _), _) = cast(VisionTransformer, model), images_of(model)
    shape = shape_of(vit)
    own = shape.heads, ratio(shape.hidden, shape.embed)
    return TargetSpec(vit.embed_dim, len(vit.blocks), vit.num_classes, height, patch, *own)


def ratio(hidden: int, embed_dim: int) -> float:
    """The ``mlp_ratio`` from which timm's ``int(embed_dim * mlp_ratio)`` gives back ``hidden``."""
    value = hidden / embed_dim
    return value if int(embed_dim * value) == hidden else math.nextafter(value, math.inf)
