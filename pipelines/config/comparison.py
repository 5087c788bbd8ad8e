"""The comparison's settings: studies (methods x sizes x seeds x steps on one data set) and variants of our method."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipelines.config.data import CHANGES, Data
from pipelines.config.fields import Amount, Count, PathText
from pipelines.config.sizes import AnySize
from pipelines.config.validation import Section, SettingError, check_once, matches

Budget = Literal["full", "smoke"]
Rates = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
Method = Annotated[str, matches(r"[a-z0-9_]{1,64}", "should be a method's name: small letters, digits and _")]
SMOKE_STEPS, SMOKE_IMAGES = 2, 512


class Variant(Section):
    """Our method under other settings: ``set`` changes keys of the experiment as ``--set`` does.

    It has templates of its own, distilled from the same ancestor.
    """

    name: Annotated[str, matches(r"wave_[a-z0-9_]{1,60}", "should be wave_ and small letters, digits or _")]
    set: Annotated[list[str], Field(min_length=1)]

    @model_validator(mode="after")
    def _only_ours(self) -> Self:
        ours = ("templates.", "distil.", "initialise.", "preset=", "evaluate.scaler_steps")
        for override in self.set:
            if not override.strip().startswith(ours):
                raise SettingError("set", f"={override!r} is not about our method; it may set {', '.join(ours)}")
        return self


class Study(Section):
    """Every method at every size it reaches, from every seed: accuracy at step 0 and after each of ``steps``, in one
    training of the longest; [0] trains nothing. ``data`` names another data set than the ancestor's: the classifier is
    then drawn anew for every method. ``learning_rates`` default to those of the comparison; of several each method's
    best on held-out images is taken. ``held_out`` measures everything on those images, to choose between variants
    without the test set. ``distilled`` trains every cell with the losses of stage 1, by the ancestor's logits too, not
    by the labels alone.
    """

    name: Method
    methods: Annotated[list[Method], Field(min_length=1)]
    sizes: Annotated[list[AnySize], Field(min_length=1)]
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, default_factory=lambda: [0, 1, 2])]
    steps: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, default_factory=lambda: [50, 200])]
    learning_rates: Rates | None = None
    held_out: bool = False
    distilled: bool = False
    data: Data | None = None

    @model_validator(mode="after")
    def _once(self) -> Self:
        for key in ("methods", "seeds", "steps", "learning_rates"):
            check_once(key, getattr(self, key) or [])
        check_once("sizes", [size.spec().name for size in self.sizes])
        return self

    @model_validator(mode="after")
    def _effects(self) -> Self:
        if self.distilled and self.data is not None:
            raise SettingError("distilled", "=true needs the ancestor's own data: it has no logits for other classes")
        for key in ("workers", "in_memory", *CHANGES):
            if self.data is not None and self.data.given(key):
                raise SettingError(
                    f"data.{key}", "has no effect: cells read unchanged images from memory; leave it out"
                )
        return self

    def rates(self, default: Rates) -> Rates:
        """The learning rates to choose between: its own or the comparison's, any one where nothing is trained."""
        return (self.learning_rates or default)[: None if max(self.steps) else 1]

    def smaller(self) -> "Study":
        """The same methods at the first and the last size, one seed, one rate, :data:`SMOKE_STEPS` steps; of
        variants of ours the first and the last, since each may have a stage 1 of its own."""
        variants = [method for method in self.methods if method.startswith("wave_")]
        methods = [method for method in self.methods if method not in variants[1:-1]]
        ends = [*self.sizes[:1], *self.sizes[1:][-1:]]
        rates = self.learning_rates and self.learning_rates[:1]
        few = {
            "methods": methods,
            "sizes": ends,
            "seeds": self.seeds[:1],
            "steps": [SMOKE_STEPS],
            "learning_rates": rates,
        }
        return self.model_copy(update=few)


class Evaluate(Section):
    """The comparison; see :mod:`pipelines.comparison.evaluate`.

    Every cell reads batches of ``batch_size``; ``scaler_steps`` of its steps train our scalers alone by
    ``[initialise.recipe]``. Each cell and each rival's stage 1 gets ``cpus`` and ``gpus``.
    """

    studies: Annotated[list[Study], Field(default_factory=list)]
    variants: Annotated[list[Variant], Field(default_factory=list)]
    learning_rates: Annotated[Rates, Field(default_factory=lambda: [1e-3])]
    batch_size: Count = 64
    scaler_steps: Annotated[int, Field(ge=0)] = 0
    train_images: Annotated[int, Field(ge=0)] = 0
    test_images: Annotated[int, Field(ge=0)] = 0
    cpus: Amount = 1.0
    gpus: Amount = 0.0
    results: PathText = ""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.cpus and not self.gpus:
            raise SettingError("cpus", "=0 and gpus=0 give a cell nothing; set cpus = 1")
        return self

    @model_validator(mode="after")
    def _unique(self) -> Self:
        for key in ("studies", "variants"):
            check_once(key, [entry.name for entry in getattr(self, key)])
        return self

    def smaller(self) -> "Evaluate":
        """Every study and method at its smallest; see :meth:`Study.smaller`."""
        few = {
            "studies": [study.smaller() for study in self.studies],
            "learning_rates": self.learning_rates[:1],
            "scaler_steps": min(self.scaler_steps, 1),
            "train_images": SMOKE_IMAGES,
            "test_images": SMOKE_IMAGES // 2,
            "results": "",
        }
        return self.model_copy(update=few)
