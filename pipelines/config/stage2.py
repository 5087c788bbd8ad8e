"""The section [initialise]: initialisation of every size, and its training (stage 2)."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipelines.config.fields import Amount
from pipelines.config.validation import Section, SettingError, check_unused
from wave.recipe import Recipe
from wave.resampling import Depth
from wave.width import Symmetry, Width, WidthScale


class Rule(Section):
    """Resources of one trial whose model has at most ``max_params`` million parameters; without it, of any other."""

    max_params: Annotated[float, Field(gt=0)] | None = None
    cpus: Amount = 1.0
    gpus: Amount = 0.0


class Initialise(Section):
    """Stage 2, one trial a size; without a recipe no size is trained. ``subset`` images (0 = all) are used.

    Beside cached ``teacher_logits`` a subset's images stay unchanged; without (also by ``recipe.kl_weight = 0``, which
    needs no teacher) ``data.hflip`` and ``data.random_crop`` change them.
    ``compare_scratch`` trains timm's random initialisation by the same recipe beside each size, for the table.
    """

    recipe: Recipe | None = None
    scalers: Literal["resample", "random"] = "resample"
    depth: Depth = "nearest"
    width: Width = "leading"
    width_scale: WidthScale = "auto"
    symmetry: Symmetry = "split"
    symmetry_strength: Annotated[float, Field(gt=0, le=1)] | None = None
    subset: Annotated[int, Field(ge=0)] = 0
    teacher_logits: bool = True
    compare_scratch: bool = False
    max_failures: Annotated[int, Field(ge=-1)] = 2
    resources: Annotated[list[Rule], Field(min_length=1, default_factory=lambda: [Rule()])]

    def images_of(self, rows: int) -> int:
        """How many of ``rows`` training images are used."""
        return min(self.subset or rows, rows)

    @model_validator(mode="after")
    def _effects(self) -> Self:
        if self.symmetry == "none" and self.symmetry_strength is not None:
            text = 'has no effect with symmetry="none"; set "split" or "noise", or leave it out'
            raise SettingError("symmetry_strength", text)
        for key in ("compare_scratch", "subset", "teacher_logits") if self.recipe is None else ():
            if self.given(key):
                raise SettingError(key, "has no effect without [initialise.recipe]; give it or leave it out")
        check_unused(self.recipe, ("template_lr_scale",), "templates are frozen in stage 2")
        if self.teacher_logits and self.recipe and (self.recipe.mixup or self.recipe.cutmix):
            text = "=true reuses logits of unchanged images; mixup and cutmix change them: set one off"
            raise SettingError("teacher_logits", text)
        if not all(rule.cpus or rule.gpus for rule in self.resources):
            raise SettingError(
                "resources", "has a rule of neither CPU nor GPU; a trial needs one of them: set cpus = 1"
            )
        limits = [rule.max_params for rule in self.resources]
        if limits[-1] is not None:
            raise SettingError(
                "resources", f"has no rule above {limits[-1]} million; leave max_params out of the last rule"
            )
        for before, limit in zip([0.0, *limits], limits[:-1], strict=False):
            if limit is None or before is None or limit <= before:
                raise SettingError(
                    "resources", "has a rule that never matches; order max_params upwards, the one without it last"
                )
        return self

    @property
    def caches_logits(self) -> bool:
        """Whether the teacher's logits are computed once, so that training reads every image unchanged."""
        return self.teacher_logits and self.recipe is not None and self.recipe.kl_weight > 0

    def resources_for(self, parameters: int) -> dict[str, float]:
        """``{"cpu": .., "gpu": ..}`` for a model with that many parameters: the first rule that matches."""
        rule = next(r for r in self.resources if r.max_params is None or parameters <= r.max_params * 1e6)
        return {"cpu": rule.cpus, "gpu": rule.gpus}
