"""Sizes in an experiment's file: one by one or a grid, and what of them differs from the ancestor."""

import math
from typing import Annotated, Self

from pydantic import Discriminator, Field, Tag, model_validator

from pipelines.config.validation import Section, SettingError, check_once
from wave.spec import TargetSpec

Width = Annotated[int, Field(ge=1, le=16384)]
Layers = Annotated[int, Field(ge=1, le=1024)]

MAX_SIDE = 8192
"""Pixels of an image's side."""
MAX_CLASSES = 2**24


class Size(Section):
    """A width and a depth; heads and MLPs are the ancestor's."""

    embed_dim: Width
    """Channels of the residual stream, 1 to 16384. Multiples of the block size need no cropping."""
    depth: Layers
    """Transformer blocks, 1 to 1024."""


class AnySize(Size):
    """A width and a depth, with heads and MLPs of its own where they are given."""

    num_heads: Annotated[int, Field(ge=1, le=16384)] | None = None
    """Attention heads. Default: as many as keep the ancestor's head_dim. A head may have fewer
    channels than the ancestor's, not more."""
    mlp_ratio: Annotated[float, Field(gt=0, le=64)] | None = None
    """Hidden channels of the MLP as a multiple of `embed_dim`, above 0 and at most 64. Default: the
    ancestor's."""

    @model_validator(mode="after")
    def _hidden(self) -> Self:
        if self.mlp_ratio is not None and self.mlp_ratio * self.embed_dim < 1:
            width = self.embed_dim
            least = math.ceil(1e4 / width) / 1e4
            raise SettingError("mlp_ratio", f"={self.mlp_ratio} of {width} is no hidden channel; nearest: {least:g}")
        return self

    def spec(self) -> TargetSpec:
        return TargetSpec(**self.model_dump())


class TargetSize(AnySize):
    """A size to initialise, with everything in which it differs from the ancestor."""

    num_classes: Annotated[int, Field(ge=1, le=MAX_CLASSES)] | None = None
    """Classes of the classifier. If it differs from the ancestor's, the classifier is initialised
    randomly."""
    img_size: Annotated[int, Field(ge=1, le=MAX_SIDE)] | None = None
    """Side of the input images in pixels, a multiple of the patch size. Default: the ancestor's;
    position embeddings are resized."""
    patch_size: Annotated[int, Field(ge=1, le=MAX_SIDE)] | None = None
    """Side of a patch in pixels. Default: the ancestor's; patch embeddings are resized."""

    @model_validator(mode="after")
    def _patches(self) -> Self:
        if self.img_size and self.patch_size and self.img_size % self.patch_size:
            below = max(self.img_size // self.patch_size, 1) * self.patch_size
            raise SettingError(
                "img_size", f"{self.img_size} is not a multiple of patch_size={self.patch_size}; nearest: {below}"
            )
        return self


class SizeGrid(Section):
    """Every width with every depth."""

    embed_dim: Annotated[list[Width], Field(min_length=1)]
    """Widths, each combined with every depth."""
    depth: Annotated[list[Layers], Field(min_length=1)]
    """Depths, each combined with every width."""

    @model_validator(mode="after")
    def _no_duplicates(self) -> Self:
        for key in ("embed_dim", "depth"):
            check_once(key, getattr(self, key))
        return self

    def specs(self) -> list[TargetSpec]:
        """Ordered by depth, then width."""
        return [TargetSpec(width, depth) for depth in self.depth for width in self.embed_dim]


Sizes = Annotated[
    Annotated[SizeGrid, Tag("grid")] | Annotated[list[AnySize], Field(min_length=1), Tag("list")],
    Discriminator(lambda value: "list" if isinstance(value, list) else "grid"),
]
"""Every width with every depth, or one by one."""


class Targets(Section):
    """The sizes to initialise and register, as a grid or a list."""

    grid: SizeGrid | None = None
    """Every width with every depth. Give either `grid` or `sizes`."""
    sizes: Annotated[list[TargetSize], Field(default_factory=list)]
    """Sizes one by one, each with what differs from the ancestor. Give either `grid` or `sizes`."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.grid and self.sizes:
            raise SettingError("", "has both grid and sizes; leave one out, as by --set targets.sizes=")
        if not self.grid and not self.sizes:
            raise SettingError("", "names no size; give grid = {embed_dim = [64], depth = [3, 6]} or sizes")
        check_once("sizes", [spec.name for spec in self.specs()])
        return self

    def specs(self) -> list[TargetSpec]:
        return self.grid.specs() if self.grid else [size.spec() for size in self.sizes]
