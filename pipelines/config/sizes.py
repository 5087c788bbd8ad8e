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
    """``{embed_dim = 64, depth = 6}``, heads and MLPs as the ancestor's."""

    embed_dim: Width
    depth: Layers


class AnySize(Size):
    """``{embed_dim = 72, depth = 6, num_heads = 6, mlp_ratio = 2}``; ``None`` means as the ancestor."""

    num_heads: Annotated[int, Field(ge=1, le=16384)] | None = None
    mlp_ratio: Annotated[float, Field(gt=0, le=64)] | None = None

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
    """A size to initialise; what else differs from the ancestor may be given."""

    num_classes: Annotated[int, Field(ge=1, le=MAX_CLASSES)] | None = None
    img_size: Annotated[int, Field(ge=1, le=MAX_SIDE)] | None = None
    patch_size: Annotated[int, Field(ge=1, le=MAX_SIDE)] | None = None

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
    depth: Annotated[list[Layers], Field(min_length=1)]

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
    """The sizes to initialise: a grid or a list."""

    grid: SizeGrid | None = None
    sizes: Annotated[list[TargetSize], Field(default_factory=list)]

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
