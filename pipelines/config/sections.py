"""Sections of an experiment: data, templates, stage 1, Ray; each checks ranges, and effects within itself."""

from typing import Annotated, Any, Literal, Self, cast

from pydantic import AfterValidator, Field, model_validator

from pipelines.config.sizes import MAX_SIDE, Grid, Size, Sizes
from pipelines.config.validation import Says, Section, SettingError, check_once, matches, share
from pipelines.data.transforms import check_policy
from wave.kron import Order
from wave.recipe import Recipe
from wave.spec import KINDS, Kind, TargetSpec, TemplateSpec

_PATH = r"(?=.{0,1024}\Z)[^/\x00]{0,255}(/[^/\x00]{0,255})*"
PathText = Annotated[str, matches(_PATH, "should be a path of at most 1024 characters, 255 a part, none of them NUL")]
Count = Annotated[int, Field(ge=1)]
Block = tuple[Count, Count]
Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0), AfterValidator(share)]

_COUNT = "a whole number of at least 1"
_PAIR = f"[rows, columns], each {_COUNT}"
_KINDS = ", ".join(KINDS)


CHANGES = ("augment", "hflip", "random_crop", "color_jitter", "reprob")
"""Settings of :class:`Data` that change training images."""


class Data(Section):
    """Where the images are and what training does to them.

    See :mod:`pipelines.data.dataset` and :mod:`pipelines.data.batches`.

    ``held_out`` training images are kept apart when the set is converted: nothing trains on them, the comparison
    chooses learning rates by them.
    """

    path: Annotated[PathText, Field(min_length=1)]
    convert: Literal["digits", "fashion-mnist", "imagefolder"] | None = None
    source: PathText = ""
    image_size: Annotated[int, Field(ge=1, le=MAX_SIDE)] | None = None
    held_out: Annotated[int, Field(ge=0)] = 0
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    in_memory: Annotated[Literal["auto"] | bool, Says('should be "auto", true or false')] = "auto"
    augment: str = ""
    hflip: Share = 0.0
    random_crop: Share = 0.0
    color_jitter: Annotated[float, Field(ge=0, le=1)] = 0.0
    reprob: Share = 0.0

    @property
    def changes_images(self) -> bool:
        """Whether a training image differs from one epoch to the next."""
        return any(getattr(self, key) for key in CHANGES)

    @property
    def unchanged(self) -> "Data":
        """The same, of images as they are."""
        return self.model_copy(update={key: Data.model_fields[key].default for key in CHANGES})

    def _converter(self) -> str:
        return f"convert={self.convert!r}" if self.convert else "no convert"

    @model_validator(mode="after")
    def _effects(self) -> Self:
        if self.source and self.convert in (None, "digits"):
            raise SettingError("source", f"has no effect with {self._converter()}; leave it out")
        if self.convert == "imagefolder" and not self.source:
            raise SettingError(
                "source", 'is missing; convert="imagefolder" needs the folder that holds train/ and val/'
            )
        if self.image_size and self.convert not in ("imagefolder", "digits"):
            raise SettingError("image_size", f"has no effect with {self._converter()}; leave it out")
        if self.in_memory is True:
            for key in ("workers", "augment", "color_jitter", "reprob"):
                if getattr(self, key):
                    raise SettingError(key, "has no effect with in_memory=true; leave one of them out")
        if self.augment:
            check_policy(self.augment)
            if self.color_jitter and "3a" not in self.augment:
                raise SettingError(
                    "color_jitter", f"has no effect with augment={self.augment!r}; leave one of them out"
                )
        return self


class Templates(Section):
    """How many templates, of which block size. ``block`` defaults to (head_dim, head_dim)."""

    count: Annotated[Count | dict[str, Count], Says(f"should be {_COUNT}, or a table of one for each of {_KINDS}")] = 32
    block: (
        Annotated[Block | dict[str, Block], Says(f"should be {_PAIR}, or a table of one for each of {_KINDS}")] | None
    ) = None
    order: Order = "tile"
    start: Literal["canonical", "svd", "random"] = "canonical"
    auxiliary: Size | None = None

    @model_validator(mode="after")
    def _all_kinds(self) -> Self:
        for key in ("count", "block"):
            table = getattr(self, key)
            if not isinstance(table, dict):
                continue
            if foreign := [kind for kind in table if kind not in KINDS]:
                raise SettingError(f"{key}.{foreign[0]}", f"is not a kind of matrix; name all of {_KINDS}")
            if absent := [kind for kind in KINDS if kind not in table]:
                raise SettingError(key, f"lacks {', '.join(absent)}; name all of {_KINDS}")
        return self

    def spec(self, head_dim: int, mlp_ratio: float) -> TemplateSpec:
        """The specification for an ancestor's head_dim and mlp_ratio; raises :class:`WaveError`."""
        counts = self.count if isinstance(self.count, dict) else dict.fromkeys(KINDS, self.count)
        blocks = (
            self.block if isinstance(self.block, dict) else dict.fromkeys(KINDS, self.block or (head_dim, head_dim))
        )
        by_kind = cast(dict[Kind, tuple[int, int]], blocks), cast(dict[Kind, int], counts)
        return TemplateSpec(*by_kind, head_dim, mlp_ratio, self.order)


class Distil(Section):
    """Stage 1. ``workers`` is a number, or [min, max] for an elastic group.

    ``sizes`` are sampled, ``sizes_per_step`` of them a step, each in proportion to its cost to the power of
    ``-cost_power``: 0 is equal chance, 1 an equal share of the computing. Without sizes every batch is read at the
    auxiliary size, with ``auxiliary`` at that size besides the drawn ones. ``feature_weight`` adds the distance of
    tokens from the ancestor's (:mod:`wave.features`). ``annealing`` goes over from the ancestor's logits to the labels,
    where the recipe has both. The defaults are measured: docs/tried.md.
    """

    recipe: Recipe
    workers: Annotated[Count | tuple[Count, Count], Says(f"should be {_COUNT}, or two of them, [least, most]")] = 1
    use_gpu: bool = False
    resources_per_worker: Annotated[dict[str, Amount], Field(default_factory=lambda: {"CPU": 1.0})]
    max_failures: Annotated[int, Field(ge=-1)] = 3
    sizes: Sizes | None = None
    sizes_per_step: Count = 1
    cost_power: Share = 0.75
    auxiliary: bool = False
    feature_weight: Annotated[float, Field(ge=0)] = 0.0
    annealing: bool = True

    @property
    def sampled(self) -> list[TargetSpec]:
        """The sizes of which each step draws some."""
        if isinstance(self.sizes, Grid):
            return self.sizes.specs()
        return [size.spec() for size in self.sizes or []]

    @property
    def passes(self) -> int:
        """How many models read each batch: the auxiliary one, and those of the sampled sizes."""
        return self.reads_auxiliary + (self.sizes_per_step if self.sizes else 0)

    @property
    def reads_auxiliary(self) -> bool:
        """Whether every batch is read at the auxiliary size."""
        return self.auxiliary or self.sizes is None

    @property
    def anneals(self) -> bool:
        """Whether the losses' weights change from the ancestor's logits to the labels."""
        return self.annealing and self.recipe.kl_weight > 0 and self.recipe.ce_weight > 0

    @property
    def losses(self) -> dict[str, float]:
        """What of the recipe says what the loss is."""
        return {"kl_weight": self.recipe.kl_weight, "ce_weight": self.recipe.ce_weight, "tau": self.recipe.tau}

    @property
    def made_by(self) -> dict[str, Any]:
        """What templates depend on, as JSON types: all but where the training runs."""
        where = {"workers", "resources_per_worker", "use_gpu", "max_failures"}
        return {**self.model_dump(mode="json", exclude=where), "annealing": self.anneals}

    @property
    def worker_range(self) -> tuple[int, int]:
        """Least and most workers."""
        return self.workers if isinstance(self.workers, tuple) else (self.workers, self.workers)

    @model_validator(mode="after")
    def _effects(self) -> Self:
        least, most = self.worker_range
        if least > most:
            raise SettingError("workers", f"=[{least}, {most}] should be [least, most]")
        for workers in range(least, min(most, self.recipe.batch_size + 1) + 1):
            if over := self.recipe.batch_size % workers:
                low = self.recipe.batch_size - over
                near = " and ".join(str(n) for n in (low, low + workers) if n)
                text = f"={self.recipe.batch_size} is not a multiple of {workers} workers; nearest: {near}"
                raise SettingError("recipe.batch_size", text)
        for key in ("sizes_per_step", "cost_power", "auxiliary"):
            if self.sizes is None and self.given(key):
                raise SettingError(key, "has no effect without distil.sizes; leave it out")
        check_once("sizes", [spec.name for spec in self.sampled])
        if self.sizes and self.sizes_per_step > (number := len(self.sampled)):
            text = f"={self.sizes_per_step} is more than the {number} sizes of distil.sizes; nearest: {number}"
            raise SettingError("sizes_per_step", text)
        if not self.reads_auxiliary and self.recipe.compile:
            raise SettingError(
                "recipe.compile", "compiles the auxiliary model alone; set auxiliary = true or leave it out"
            )
        if not self.use_gpu and not any(self.resources_per_worker.values()):
            raise SettingError("resources_per_worker", "gives a worker nothing; set CPU = 1, or use_gpu = true")
        if not self.use_gpu and self.resources_per_worker.get("GPU"):
            raise SettingError("resources_per_worker.GPU", "has no effect with use_gpu=false; set use_gpu = true")
        return self


class Cluster(Section):
    """Which Ray: "" starts one on this machine, "auto" joins the one here, ``ray://host:port`` another."""

    address: str = ""
    num_cpus: Count | None = None

    @model_validator(mode="after")
    def _effects(self) -> Self:
        if self.address and self.num_cpus is not None:
            raise SettingError("num_cpus", f"has no effect with address={self.address!r}; leave it out")
        return self
