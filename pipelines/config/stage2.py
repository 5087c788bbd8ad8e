"""The section [initialise]: initialisation of every size, and its training (stage 2)."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipelines.config.fields import Amount
from pipelines.config.validation import Section, SettingError, check_unused
from wave.layers import Depth
from wave.recipe import Recipe
from wave.width import Symmetry, Width, WidthScale


class Rule(Section):
    """The resources of one size. Rules are tried in order, smallest ``max_params`` first."""

    max_params: Annotated[float, Field(gt=0)] | None = None
    """Largest model this rule applies to, in millions of parameters. The last rule has none and
    covers all larger models."""
    cpus: Amount = 1.0
    """CPU cores per size; fractions, in steps of 0.0001, let several sizes share a core."""
    gpus: Amount = 0.0
    """GPUs per size; a fraction lets several sizes share one."""


class Initialise(Section):
    """Stage 2: builds every target size, and trains its scalers if there is a recipe."""

    recipe: Recipe | None = None
    """How the scalers of each size are trained. Without it nothing is trained, which is right for
    sizes that stage 1 sampled."""
    scalers: Literal["resample", "random"] = "resample"
    """Where scalers start: `"resample"` reads them off the auxiliary model; `"random"` draws them,
    as in the paper, and then needs a recipe to be useful."""
    depth: Depth = "nearest"
    """Which auxiliary layer each layer copies: the `"nearest"`, a `"linear"` blend of two, or
    copies with `"identity"` layers between them."""
    width: Width = "leading"
    """Which blocks a width uses: `"leading"` takes the most important ones first; `"even"` spreads
    them evenly, which suits an ancestor that is not in canonical form."""
    width_scale: WidthScale = "auto"
    """Rescales weights when the width changes: `"copies"` preserves the function when growing by
    whole multiples, `"sqrt"` preserves the scale when shrinking, `"auto"` takes the one that fits,
    and `"none"` leaves weights as they are."""
    symmetry: Symmetry = "split"
    """Separates the copies that growing makes, which would otherwise stay equal: `"split"` keeps
    the function, `"noise"` perturbs them, `"none"` leaves them equal."""
    symmetry_strength: Annotated[float, Field(gt=0, le=1)] | None = None
    """Relative size of that separation, above 0 and at most 1. Default: 0.1."""
    subset: Annotated[int, Field(ge=0)] = 0
    """Training images that stage 2 uses; 0 means all. A few thousand are enough for scalers, and a
    subset is kept in memory."""
    teacher_logits: bool = True
    """Computes the ancestor's logits once and reuses them, so images stay unchanged. With `false`,
    the ancestor reads every augmented batch."""
    compare_scratch: bool = False
    """Trains timm's random initialisation with the same recipe beside each size, for the last
    column of the table. It doubles the time."""
    max_failures: Annotated[int, Field(ge=-1)] = 2
    """How often a size is retried after an error; -1 retries without end. One failed size does not
    stop the others."""
    resources: Annotated[list[Rule], Field(min_length=1, default_factory=lambda: [Rule()])]
    """CPUs and GPUs per size, by its number of parameters; the first matching rule counts. Default:
    one CPU."""

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
