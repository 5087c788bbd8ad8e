"""Family: all sizes of one timm architecture, and how a model says which family it is of."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import timm
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from .errors import WaveError
from .shape import heads_of
from .spec import TargetSpec
from .typed import as_vit, creation_arguments, json_object, pretrained_config
from .vit import check_supported, head_dim_of, images_of, shape_of

SIZE_ARGUMENTS = ("embed_dim", "depth", "num_heads", "num_classes", "img_size", "patch_size")
_NOT_KEPT = (*SIZE_ARGUMENTS, "in_chans", "mlp_ratio", "device", "dtype")
"""What ``timm.create_model`` was called with and a family says in other fields, or not at all."""


@dataclass(frozen=True)
class Family:
    """All sizes of one architecture.

    Args:
        architecture: timm's name of it.
        model_args: Further arguments of ``timm.create_model``, JSON types.
        size: The ancestor's size; ``num_heads`` and ``mlp_ratio`` are None.
        head_dim: Channels of one head.
        mlp_ratio: Hidden units per channel.
        in_chans: Channels of the images.

    >>> ancestor = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32)
    >>> family = Family.of(ancestor)
    >>> family.create(TargetSpec(128, 4)).embed_dim
    128
    """

    architecture: str
    model_args: Mapping[str, object]
    size: TargetSpec
    head_dim: int
    mlp_ratio: float
    in_chans: int = 3

    @classmethod
    def of(cls, model: nn.Module) -> "Family":
        """Return the family of a model that timm created.

        Raises:
            WaveError: The model is not supported, or was changed after timm created it.
        """
        vit = check_supported(model)
        architecture = pretrained_config(vit).get("architecture")
        if not isinstance(architecture, str) or not timm.is_model(architecture):
            raise WaveError(
                "the model does not say which timm architecture it is "
                f"(pretrained_cfg: {architecture!r})"
            )
        (height, width), patch, in_chans = images_of(vit)
        if height != width or patch[0] != patch[1]:
            raise WaveError(
                f"images of {height}x{width} and patches of {patch[0]}x{patch[1]}: "
                "both must be square"
            )
        given = creation_arguments(vit)
        shape = shape_of(vit)
        family = cls(
            architecture=architecture,
            model_args={name: v for name, v in given.items() if name not in _NOT_KEPT},
            size=replace(size_of(vit), num_heads=None, mlp_ratio=None),
            head_dim=head_dim_of(vit),
            mlp_ratio=ratio(shape.hidden, shape.embed),
            in_chans=in_chans,
        )
        family._check_same(vit)
        return family

    def _check_same(self, model: VisionTransformer) -> None:
        """Make sure that these arguments give such a model again, here and where it is loaded."""
        for name, value in self.model_args.items():
            try:
                json.dumps(value)
            except TypeError:
                raise WaveError(
                    f"the model was created with {name}={value!r:.60}, which a saved model cannot "
                    "say; give timm's name, as in norm_layer='layernorm'"
                ) from None
        again = self.create(self.size, device="meta")
        different = sorted(set(again.state_dict()) ^ set(model.state_dict()))
        if again.global_pool == model.global_pool and not different:
            return
        what = f"global_pool={again.global_pool!r} by its arguments"
        if different:
            what = different[0]
        raise WaveError(
            f"the model was changed after timm.create_model ({what}); "
            f"create it with what it is to have: global_pool={model.global_pool!r}"
        )

    def resolve(self, target: TargetSpec) -> TargetSpec:
        """Put the ancestor's values in place of every None.

        ``num_heads`` and ``mlp_ratio`` are the exception: they become None where they are as the
        family's own, so that equal models have equal sizes and names.

        Raises:
            WaveError: The width is not a whole number of heads, or the image of patches.

        >>> ancestor = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32)
        >>> Family.of(ancestor).resolve(TargetSpec(128, 4, num_heads=2)).name
        'd128-l04-c1000-i32-p16'
        """
        inherited = ("num_classes", "img_size", "patch_size")
        missing = [name for name in inherited if getattr(target, name) is None]
        full = replace(target, **{name: getattr(self.size, name) for name in missing})
        heads = heads_of(full.embed_dim, full.num_heads, head_dim=self.head_dim)
        if heads * self.head_dim == full.embed_dim:
            full = replace(full, num_heads=None)
        own_hidden = int(full.embed_dim * self.mlp_ratio)
        if full.mlp_ratio and int(full.embed_dim * full.mlp_ratio) == own_hidden:
            full = replace(full, mlp_ratio=None)
        image, patch = full.pixels()
        if image % patch:
            near = image // patch * patch or patch
            raise WaveError(f"img_size={image} is not a multiple of patch_size={patch}; try {near}")
        return full

    def model_arguments(self, target: TargetSpec) -> dict[str, object]:
        """Return the keyword arguments of ``timm.create_model`` for a size, as JSON types."""
        full = self.resolve(target)
        return {
            **self.model_args,
            "embed_dim": full.embed_dim,
            "depth": full.depth,
            "num_heads": heads_of(full.embed_dim, full.num_heads, head_dim=self.head_dim),
            "mlp_ratio": self.mlp_ratio if full.mlp_ratio is None else full.mlp_ratio,
            "in_chans": self.in_chans,
            "num_classes": full.num_classes,
            "img_size": full.img_size,
            "patch_size": full.patch_size,
        }

    def create(self, target: TargetSpec, device: str | None = None) -> VisionTransformer:
        """Create a plain timm model of a size, with timm's random initialisation."""
        arguments = json_object(self.model_arguments(target))
        model = timm.create_model(self.architecture, pretrained=False, **arguments, device=device)
        return check_supported(model)

    def to_json(self) -> dict[str, object]:
        """Return plain JSON types; :meth:`from_json` is the inverse."""
        return {
            "architecture": self.architecture,
            "model_args": dict(self.model_args),
            "size": self.size.to_json(),
            "head_dim": self.head_dim,
            "mlp_ratio": self.mlp_ratio,
            "in_chans": self.in_chans,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> "Family":
        """Read what :meth:`to_json` wrote.

        Raises:
            WaveError: A field is missing or of a wrong type, or timm has no such architecture.
        """
        try:
            size = TargetSpec(**json_object(data["size"]))
            family = cls(**json_object({**data, "size": size}))
            dict(**family.model_args)
            known = timm.is_model(family.architecture)
            if family.head_dim < 1 or family.in_chans < 1 or not known:
                raise WaveError(
                    f"timm has no architecture {family.architecture!r} "
                    f"with {family.in_chans} channels"
                )
        except (KeyError, TypeError, AttributeError) as error:
            raise WaveError(f"model family is not valid: {error}") from None
        return family


def size_of(model: nn.Module) -> TargetSpec:
    """Return the full size of a plain or templated model with square images and patches.

    Heads and MLP are given in numbers; :meth:`Family.resolve` leaves out what a family has anyway.
    """
    vit = as_vit(model)
    (height, _), (patch, _), _ = images_of(model)
    shape = shape_of(vit)
    return TargetSpec(
        embed_dim=vit.embed_dim,
        depth=len(vit.blocks),
        num_classes=vit.num_classes,
        img_size=height,
        patch_size=patch,
        num_heads=shape.heads,
        mlp_ratio=ratio(shape.hidden, shape.embed),
    )


def ratio(hidden: int, embed_dim: int) -> float:
    """Return the ``mlp_ratio`` of which timm's ``int(embed_dim * mlp_ratio)`` is ``hidden``."""
    value = hidden / embed_dim
    # The quotient, rounded down, can give one hidden unit too few.
    if int(embed_dim * value) == hidden:
        return value
    return math.nextafter(value, math.inf)
