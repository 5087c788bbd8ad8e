"""The comparison's settings: studies (methods x sizes x seeds x steps on one data set) and variants of our method."""

from collections.abc import Sequence
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
    """WAVE under other settings, with templates of its own, distilled from the same ancestor."""

    name: Annotated[str, matches(r"wave_[a-z0-9_]{1,60}", "should be wave_ and small letters, digits or _")]
    """Names the variant in studies: `wave_` and small letters, digits or `_`."""
    set: Annotated[list[str], Field(min_length=1)]
    """Settings that differ from the experiment's, each written as for `--set`. Each variant has its
    own distillation from the same ancestor."""

    @model_validator(mode="after")
    def _only_ours(self) -> Self:
        ours = ("templates.", "distil.", "initialise.", "preset=", "evaluate.scaler_steps")
        for override in self.set:
            if not override.strip().startswith(ours):
                raise SettingError("set", f"={override!r} is not about our method; it may set {', '.join(ours)}")
        return self


class Study(Section):
    """One comparison: every method at every size it reaches, from every seed, on one data set."""

    name: Method
    """Names the study in tables and pictures: small letters, digits and `_`."""
    methods: Annotated[list[Method], Field(min_length=1)]
    """What to compare: `wave`, variants (`wave_...`), and baselines by name."""
    sizes: Annotated[list[AnySize], Field(min_length=1)]
    """Sizes at which every method is measured, where it reaches them."""
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, default_factory=lambda: [0, 1, 2])]
    """One training per seed; tables show mean and standard deviation."""
    steps: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, default_factory=lambda: [50, 200])]
    """Training steps after which accuracy is measured, besides step 0. One training of the longest
    is read off on the way; `[0]` trains nothing."""
    learning_rates: Rates | None = None
    """Rates to choose from, per method, on held-out images. Default: those of the comparison."""
    held_out: bool = False
    """Measures on held-out images instead of the test set, to choose between settings without
    looking at it."""
    distilled: bool = False
    """Trains every method with the losses of stage 1 instead of the labels alone."""
    data: Data | None = None
    """Another data set than the ancestor's, to measure transfer. The classifier is then random for
    every method."""

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

    def rates(self, default: Sequence[float]) -> list[float]:
        """The learning rates to choose between: its own or the comparison's.

        Where nothing is trained, any one will do.
        """
        rates = list(self.learning_rates or default)
        return rates if max(self.steps) else rates[:1]

    def smaller(self) -> "Study":
        """The same methods at the first and the last size, one seed, one rate, :data:`SMOKE_STEPS` steps; of
        variants of ours the first and the last, since each may have a stage 1 of its own."""
        variants = [method for method in self.methods if method.startswith("wave_")]
        methods = [method for method in self.methods if method not in variants[1:-1]]
        ends = [self.sizes[0], self.sizes[-1]] if len(self.sizes) > 1 else self.sizes
        rates = self.learning_rates[:1] if self.learning_rates else None
        few = {
            "methods": methods,
            "sizes": ends,
            "seeds": self.seeds[:1],
            "steps": [SMOKE_STEPS],
            "learning_rates": rates,
        }
        return self.model_copy(update=few)


class Evaluate(Section):
    """The comparison with other initialisations. Only ``evaluate`` and ``report`` read it."""

    studies: Annotated[list[Study], Field(default_factory=list)]
    """What is compared, study by study."""
    variants: Annotated[list[Variant], Field(default_factory=list)]
    """WAVE under other settings, to be named in studies."""
    learning_rates: Annotated[Rates, Field(default_factory=lambda: [1e-3])]
    """Rates that each method chooses from on held-out images, unless a study gives its own."""
    batch_size: Count = 64
    """Images per training step of every cell."""
    scaler_steps: Annotated[int, Field(ge=0)] = 0
    """Steps of a cell's budget that train our scalers alone, by `[initialise.recipe]`, before all
    weights are trained."""
    train_images: Annotated[int, Field(ge=0)] = 0
    """Training images to use; 0 means all."""
    test_images: Annotated[int, Field(ge=0)] = 0
    """Test images to measure on; 0 means all."""
    cpus: Amount = 1.0
    """CPU cores per cell and per distillation of a baseline."""
    gpus: Amount = 0.0
    """GPUs per cell and per distillation of a baseline; a fraction lets several share one."""
    results: PathText = ""
    """JSON-lines file that finished cells are added to and read back from. Default:
    `evaluation.jsonl` in the output folder."""

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
