"""Experiment: one TOML file, one run. Every setting has a range and a default; one without effect is an error."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from pipelines.config.ancestor import Ancestor
from pipelines.config.cluster import Cluster
from pipelines.config.comparison import SMOKE_STEPS, Budget, Evaluate
from pipelines.config.data import Data
from pipelines.config.fields import Name, PathText
from pipelines.config.messages import one_line, redacted
from pipelines.config.registry import Mlflow
from pipelines.config.sizes import Targets
from pipelines.config.stage1 import Distil
from pipelines.config.stage2 import Initialise
from pipelines.config.templates import TemplateSettings
from pipelines.config.toml import apply_overrides, overridden, read_toml, to_toml
from pipelines.config.validation import Section, SettingError
from wave.errors import WaveError
from wave.spec import TargetSpec


class Experiment(Section):
    """One run: everything that one TOML file says."""

    extends: PathText = ""
    """Another experiment's file, relative to the folder of this one, whose settings hold where this
    file gives none: tables are merged key by key, lists and single values replaced. That file must
    not extend a third one. Not for `--set`."""
    name: Name
    """Names the run: 1 to 64 letters, digits, `-` or `_`. The output folder, the MLflow experiment
    and the registered model take it unless they are set."""
    budget: Budget = "full"
    """`"smoke"` is the same run in minutes: two steps wherever something is trained, few images in
    the comparison, and `-smoke` added to the name. It shows that everything fits together."""
    preset: Literal["all_sizes", "paper"] = "all_sizes"
    """`"paper"` is WAVE as published: random templates, one size and a constant loss in stage 1,
    random scalers that stage 2 trains. `"all_sizes"` samples sizes in stage 1, so that they need no
    training."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Decides every random draw: order of batches, sampled sizes, initial weights. The same seed on
    the same machine gives the same run."""
    output: PathText = ""
    """Folder for everything the run writes, relative to where the command runs. Default:
    `runs/NAME`. On a cluster it must lie on storage that every node sees."""
    data: Data
    """Images and what training does to them."""
    ancestor: Ancestor
    """The trained model that templates come from."""
    templates: TemplateSettings = TemplateSettings()
    """How many templates, of which block size, and how they start."""
    distil: Distil
    """Stage 1: distils the ancestor into templates."""
    initialise: Initialise
    """Stage 2: builds, and if asked trains, each size."""
    targets: Targets
    """The sizes to register."""
    evaluate: Annotated[Evaluate, Field(default_factory=lambda: Evaluate.model_validate({}))]
    """The comparison with other initialisations; only `evaluate` and `report` read it."""
    mlflow: Mlflow = Mlflow()
    """Where results are registered."""
    cluster: Cluster = Cluster()
    """Which Ray cluster runs it."""

    @model_validator(mode="after")
    def _across(self) -> Self:
        if self.extends:
            text = f'="{self.extends}" works in a file only; write one that extends it, or give that one'
            raise SettingError("extends", text)
        if self.preset == "paper" and self.initialise.recipe is None:
            text = '="paper" trains random scalers: give [initialise.recipe]'
            raise SettingError("preset", text)
        stage2 = self.initialise
        if stage2.recipe and stage2.teacher_logits and self.data.changes_images and not stage2.subset:
            text = "=true reuses logits of unchanged images, but data changes them; set it false, or set a subset"
            raise SettingError("initialise.teacher_logits", text)
        encoded_only = [key for key in ("augment", "color_jitter", "reprob") if getattr(self.data, key)]
        if stage2.recipe and stage2.subset and not stage2.caches_logits and encoded_only:
            text = f"={stage2.subset} images are held in memory, where data.{encoded_only[0]} has no effect; "
            text += "set subset = 0"
            if stage2.recipe.kl_weight:
                text += ", or teacher_logits = true, which reads them unchanged"
            raise SettingError("initialise.subset", text)
        return self

    def target_specs(self) -> list[TargetSpec]:
        """The sizes to initialise: never empty, no two alike."""
        return self.targets.specs()


def load(path: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment in a TOML file, with ``overrides`` like ``"distil.recipe.lr=0.001"``.

    An empty value (``"distil.recipe.epochs="``) takes a key out.

    Raises :class:`WaveError`: one line that names the file, the key, the rule and the nearest that works.
    """
    return parse(apply_overrides(read_toml(path), overrides), str(path), overridden(overrides))


def parse(data: dict[str, Any], where: str = "experiment", by_hand: Sequence[str] = ()) -> Experiment:
    """The experiment in a table as ``tomllib`` gives it; ``where`` begins a message, or "--set"."""
    try:
        given = Experiment.model_validate_json(json.dumps(data, default=str), strict=True)
    except ValidationError as error:
        raise WaveError(one_line(error, Experiment, data, where, by_hand)) from None
    return _completed(given)


def _completed(given: Experiment) -> Experiment:
    """The same with everything written out that follows from its preset, budget and name.

    What is complete stays as it is, so a run can read its own resolved settings.
    """
    experiment = given
    if experiment.preset == "paper":
        experiment = _as_published(experiment)
    if experiment.budget == "smoke":
        experiment = _in_minutes(experiment)
    name, mlflow = experiment.name, experiment.mlflow
    names = {
        "experiment": mlflow.experiment or name,
        "registered_model": mlflow.registered_model or name,
    }
    output = experiment.output or f"runs/{name}"
    return experiment.model_copy(update={"mlflow": mlflow.model_copy(update=names), "output": output})


def _as_published(experiment: Experiment) -> Experiment:
    """The preset "paper"."""
    ours = ("sizes", "sizes_per_step", "cost_power", "auxiliary", "feature_weight")
    distil = {name: Distil.model_fields[name].default for name in ours}
    distil["annealing"] = False
    distil["recipe"] = replace(experiment.distil.recipe, kl_weight=1.0, ce_weight=1.0)
    return experiment.model_copy(
        update={
            "distil": experiment.distil.model_copy(update=distil),
            "templates": experiment.templates.model_copy(update={"start": "random"}),
            "initialise": experiment.initialise.model_copy(update={"scalers": "random"}),
        }
    )


def _in_minutes(experiment: Experiment) -> Experiment:
    """The budget "smoke": two steps in every recipe, and a name of its own."""
    few = {"steps": SMOKE_STEPS, "epochs": None, "warmup_steps": 0, "log_every": 1}
    update: dict[str, object] = {"evaluate": experiment.evaluate.smaller()}
    for key in ("ancestor", "distil", "initialise"):
        section = getattr(experiment, key)
        if section.recipe is not None:
            update[key] = section.model_copy(update={"recipe": replace(section.recipe, **few)})
    if not experiment.name.endswith("-smoke"):
        update["name"] = f"{experiment.name}-smoke"
    return experiment.model_copy(update=update)


def resolved(experiment: Experiment) -> str:
    """The experiment as TOML, every default written out; ``load`` reads it back equal.

    A password in ``mlflow.tracking_uri`` is left out: credentials go through the environment, MLFLOW_TRACKING_USERNAME
    and MLFLOW_TRACKING_PASSWORD.
    """
    table = experiment.model_dump(mode="json")
    table["mlflow"]["tracking_uri"] = redacted(experiment.mlflow.tracking_uri)
    return to_toml(table)
