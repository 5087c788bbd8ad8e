"""Experiment: one TOML file, one run. Every setting has a range and a default; one without effect is an error."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from pipelines.config.ancestor import Ancestor
from pipelines.config.comparison import SMOKE_STEPS, Budget, Evaluate
from pipelines.config.sections import Amount, Cluster, Data, Distil, PathText, Templates
from pipelines.config.sizes import Grid, Size, TargetSize
from pipelines.config.toml import apply_overrides, one_line, read_toml, redacted, to_toml
from pipelines.config.unused import check_unused
from pipelines.config.validation import Section, SettingError, check_once, matches
from wave.errors import WaveError
from wave.recipe import Recipe
from wave.resampling import Depth, Symmetry, Width, WidthScale
from wave.spec import TargetSpec

__all__ = [
    "Ancestor",
    "Cluster",
    "Data",
    "Distil",
    "Experiment",
    "Grid",
    "Initialise",
    "Mlflow",
    "Rule",
    "Size",
    "TargetSize",
    "Targets",
    "Templates",
    "load",
    "parse",
    "redacted",
    "resolved",
]

Name = Annotated[str, matches(r"[A-Za-z0-9_-]{1,64}", "should be 1 to 64 letters, digits, - or _")]
RegistryName = Annotated[
    str, matches(r"[^/:\x00-\x1f]{0,200}", "should be at most 200 characters, none of them / or :")
]


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


class Targets(Section):
    """The sizes to initialise: a grid or a list."""

    grid: Grid | None = None
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


class Mlflow(Section):
    """Where results are registered. ``tracking_uri`` "" is SQLite in the folder where the command runs."""

    tracking_uri: Annotated[str, Field(max_length=2048, repr=False)] = ""
    experiment: RegistryName = ""
    registered_model: RegistryName = ""


class Experiment(Section):
    """One run. ``output`` is relative to the folder where the command runs; names not given default to ``name``.

    ``budget="smoke"`` is the same run with two steps wherever something is trained and few images in the comparison,
    under a name of its own: it shows in minutes that everything fits together. ``preset="paper"`` is WAVE's own form:
    random templates, one size and the labels beside the ancestor's logits in stage 1, random scalers that stage 2
    trains.
    """

    name: Name
    budget: Budget = "full"
    preset: Literal["all_sizes", "paper"] = "all_sizes"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    output: PathText = ""
    data: Data
    ancestor: Ancestor
    templates: Templates = Templates()
    distil: Distil
    initialise: Initialise
    targets: Targets
    evaluate: Annotated[Evaluate, Field(default_factory=lambda: Evaluate.model_validate({}))]
    mlflow: Mlflow = Mlflow()
    cluster: Cluster = Cluster()

    @model_validator(mode="after")
    def _across(self) -> Self:
        if self.initialise.teacher_logits and self.data.changes_images and not self.initialise.subset:
            text = "=true reuses logits of unchanged images, but data changes them; set it false, or set a subset"
            raise SettingError("initialise.teacher_logits", text)
        encoded_only = [key for key in ("augment", "color_jitter", "reprob") if getattr(self.data, key)]
        stage2 = self.initialise
        if stage2.recipe and stage2.subset and not stage2.caches_logits and encoded_only:
            text = f"={stage2.subset} images are held in memory, where data.{encoded_only[0]} has no effect; "
            text += "set subset = 0"
            if stage2.recipe.kl_weight:
                text += ", or teacher_logits = true, which reads them unchanged"
            raise SettingError("initialise.subset", text)
        if self.preset == "paper":
            self._as_paper()
        if self.budget == "smoke":
            self._reduce()
        names = {key: getattr(self.mlflow, key) or self.name for key in ("experiment", "registered_model")}
        object.__setattr__(self, "mlflow", self.mlflow.model_copy(update=names))  # frozen: defaults, once
        object.__setattr__(self, "output", self.output or f"runs/{self.name}")
        return self

    def _as_paper(self) -> None:
        if self.initialise.recipe is None:
            raise SettingError("preset", '="paper" trains random scalers: give [initialise.recipe]')
        ours = ("sizes", "sizes_per_step", "cost_power", "auxiliary", "feature_weight")
        plain = {**{k: Distil.model_fields[k].default for k in ours}, "annealing": False}
        plain["recipe"] = replace(self.distil.recipe, kl_weight=1.0, ce_weight=1.0)
        object.__setattr__(self, "distil", self.distil.model_copy(update=plain))
        object.__setattr__(self, "templates", self.templates.model_copy(update={"start": "random"}))
        object.__setattr__(self, "initialise", self.initialise.model_copy(update={"scalers": "random"}))

    def _reduce(self) -> None:
        """Two steps in every recipe, once; a reduced experiment read back stays as it is."""
        for key in ("ancestor", "distil", "initialise"):
            section = getattr(self, key)
            if section.recipe is not None:
                few = {"steps": SMOKE_STEPS, "epochs": None, "warmup_steps": 0, "log_every": 1}
                update = {"recipe": replace(section.recipe, **few)}
                object.__setattr__(self, key, section.model_copy(update=update))
        object.__setattr__(self, "evaluate", self.evaluate.smaller())
        if not self.name.endswith("-smoke"):
            object.__setattr__(self, "name", f"{self.name}-smoke")

    def target_specs(self) -> list[TargetSpec]:
        """The sizes to initialise: never empty, no two alike."""
        return self.targets.specs()


def load(path: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment in a TOML file, with ``overrides`` like ``"distil.recipe.lr=0.001"``.

    An empty value (``"distil.recipe.epochs="``) takes a key out.

    Raises :class:`WaveError`: one line that names the file, the key, the rule and the nearest that works.
    """
    keys = [override.partition("=")[0].strip() for override in overrides]
    return parse(apply_overrides(read_toml(path), overrides), str(path), keys)


def parse(data: dict[str, Any], where: str = "experiment", overridden: Sequence[str] = ()) -> Experiment:
    """The experiment in a table as ``tomllib`` gives it; ``where`` begins a message, or "--set"."""
    try:
        return Experiment.model_validate_json(json.dumps(data, default=str), strict=True)
    except ValidationError as error:
        raise WaveError(one_line(error, Experiment, data, where, overridden)) from None


def resolved(experiment: Experiment) -> str:
    """The experiment as TOML, every default written out; ``load`` reads it back equal.

    A password in ``mlflow.tracking_uri`` is left out: credentials go through the environment, MLFLOW_TRACKING_USERNAME
    and MLFLOW_TRACKING_PASSWORD.
    """
    table = experiment.model_dump(mode="json")
    table["mlflow"]["tracking_uri"] = redacted(experiment.mlflow.tracking_uri)
    return to_toml(table)
