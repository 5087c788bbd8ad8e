"""The section [ancestor] of an experiment: where the trained model comes from, or how it is trained."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipelines.config.timm_arguments import mistake
from pipelines.config.validation import OF_ANCESTOR, Says, Section, SettingError, check_unused, matches
from wave.recipe import Recipe

_SOURCES = r"train|(timm|local-dir|checkpoint):[^\x00-\x1f]{1,2048}|models:/[^\x00-\x1f]{1,2048}"
_SOURCE_RULE = "should be train, timm:NAME, local-dir:PATH, checkpoint:PATH or models:/NAME/VERSION or @ALIAS"
Source = Annotated[str, matches(_SOURCES, _SOURCE_RULE)]
Argument = Annotated[
    bool | int | float | str | list[int], Says("should be true, false, a number, text or a list of whole numbers")
]
Statistics = Annotated[tuple[float, ...], Field(min_length=1)]


class Ancestor(Section):
    """The trained model that templates come from."""

    source: Source = "train"
    """Where the model comes from: `train` (here), `timm:NAME`, `local-dir:DIR`, `checkpoint:FILE`,
    or `models:/NAME@ALIAS` from the registry."""
    architecture: str | None = None
    """timm's name of the architecture, such as `vit_tiny_patch16_224`. Required for `train` and
    `checkpoint`; the other sources know it."""
    mean: Statistics | None = None
    """Mean of each channel that the model was trained with, pixels in 0 to 1. Default: what the
    source says."""
    std: Statistics | None = None
    """Standard deviation of each channel that the model was trained with. Default: what the source
    says."""
    model_args: Annotated[dict[str, Argument], Field(default_factory=dict)]
    """Arguments of the timm model that differ from the architecture's, such as `{ embed_dim = 96,
    depth = 6, num_heads = 6, patch_size = 7 }`."""
    weights: Annotated[Literal["ema", "raw"] | None, Field(exclude_if=lambda value: value is None)] = None
    """Which weights of a checkpoint that holds two: `"ema"`, the average, or `"raw"`, those that were
    trained. Default: the average where there is one, as in timm."""
    recipe: Recipe | None = None
    """How the ancestor is trained; only for `source = "train"`."""

    @model_validator(mode="after")
    def _effects(self) -> Self:
        kind = self.source.partition(":")[0]
        given = f"source={self.source!r}"
        if kind in ("train", "checkpoint"):
            if not self.architecture:
                raise SettingError(
                    "architecture", f"is missing; {given} needs a timm name such as vit_tiny_patch16_224"
                )
        elif self.architecture:
            raise SettingError("architecture", f"has no effect with {given}, which names it; leave it out")
        if self.model_args and kind in ("models", "local-dir"):
            raise SettingError("model_args", f"has no effect with {given}, which holds them; leave it out")
        if kind == "train" and self.recipe is None:
            raise SettingError("recipe", f"is missing; {given} needs [ancestor.recipe], for example epochs = 10")
        if self.weights and kind not in ("checkpoint", "local-dir"):
            raise SettingError("weights", f"has no effect with {given}, which holds one set of them; leave it out")
        if kind != "train" and self.recipe is not None:
            raise SettingError("recipe", f"has no effect with {given}; leave it out")
        if (self.mean is None) != (self.std is None) or len(self.mean or ()) != len(self.std or ()):
            raise SettingError("mean", "and std belong together: give both, one number a channel, or neither")
        if self.mean is not None and kind == "train":
            raise SettingError("mean", f"has no effect with {given}, which reads the data's own; leave it out")
        check_unused(self.recipe, OF_ANCESTOR, "an ancestor has neither teacher nor templates")
        if found := mistake(self.model_args):
            raise SettingError(f"model_args.{found[0]}", found[1])
        if any(s <= 0 for s in self.std or ()):
            raise SettingError("std", f"={list(self.std or ())} should be greater than 0")
        return self
