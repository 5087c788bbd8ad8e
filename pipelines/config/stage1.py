"""The section [distil]: distillation of the ancestor into templates (stage 1)."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from pipelines.config.fields import _COUNT, Amount, Count, Share
from pipelines.config.sizes import SizeGrid, Sizes
from pipelines.config.validation import Says, Section, SettingError, check_once
from wave.recipe import Recipe
from wave.spec import TargetSpec


class Distil(Section):
    """Stage 1: distils the ancestor into templates."""

    recipe: Recipe
    """How stage 1 is trained."""
    workers: Annotated[Count | tuple[Count, Count], Says(f"should be {_COUNT}, or two of them, [least, most]")] = 1
    """Training workers: a number, or `[least, most]` for a group that shrinks and grows with the
    cluster. `batch_size` must be a multiple of each."""
    use_gpu: bool = False
    """Whether every worker gets a GPU."""
    resources_per_worker: Annotated[dict[str, Amount], Field(default_factory=lambda: {"CPU": 1.0})]
    """Ray resources per worker, for example `{ CPU = 10, GPU = 1 }`. Default: one CPU."""
    max_failures: Annotated[int, Field(ge=-1)] = 3
    """How often training restarts from its last checkpoint after a worker died; -1 means without
    end."""
    sizes: Sizes | None = None
    """Sizes to sample, as a grid or a list. They need no training of their own afterwards. Choose a
    range that covers every size you will need; without it only the auxiliary size is trained."""
    sizes_per_step: Count = 1
    """Sizes drawn per step, at most as many as there are. One was as good as two at equal cost."""
    cost_power: Share = 0.75
    """How strongly cheap sizes are preferred, 0 to 1: a size is drawn in proportion to its cost to
    the power of minus this. 0 is equal chance, 1 an equal share of the computing."""
    auxiliary: bool = False
    """Whether the auxiliary model reads every batch beside the drawn size. It improves the
    ancestor's own size and slows down the others."""
    feature_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of a loss that pulls intermediate tokens towards the ancestor's, 0 or more; 0 leaves
    it out. It costs a pass of the ancestor per batch and did not help on Fashion-MNIST."""
    annealing: bool = True
    """Shifts the loss from the ancestor's logits to the labels over the training. It applies where
    the recipe gives both a weight."""

    @property
    def sampled(self) -> list[TargetSpec]:
        """The sizes of which each step draws some."""
        if isinstance(self.sizes, SizeGrid):
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
