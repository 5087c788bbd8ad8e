"""Keys of the comparison: what a row, and what a stage 1, depends on."""

from collections.abc import Mapping
from typing import Any

from pipelines.config.experiment import Experiment
from pipelines.data.batches import augment_of


def _switched_on(settings: Any) -> Any:
    """Without what is off (None, 0, false, empty): a setting that comes later and is off by default keeps old keys."""
    if isinstance(settings, Mapping):
        kept = {k: _switched_on(v) for k, v in settings.items()}
        return {k: v for k, v in kept.items() if v or isinstance(v, str)}
    return [_switched_on(v) for v in settings] if isinstance(settings, list | tuple) else settings


def stage1_settings(experiment: Experiment) -> dict[str, Any]:
    """What the stage 1 of a rival depends on: the recipe, and what our own costs."""
    costs = {"recipe", "sizes", "sizes_per_step", "cost_power", "auxiliary", "feature_weight", "annealing"}
    settings: dict[str, Any] = _switched_on({k: v for k, v in experiment.distil.made_by.items() if k in costs})
    return {**settings, "augment": augment_of(experiment.data)} if experiment.data.changes_images else settings


def method_settings(experiment: Experiment) -> dict[str, Any]:
    """What our method's rows depend on: templates, stage 1, how sizes are read off, and scaler training if any."""
    settings: dict[str, Any] = {
        "templates": experiment.templates.model_dump(mode="json"),
        "distil": experiment.distil.made_by,
        "scaler_steps": experiment.evaluate.scaler_steps,
    }
    rule = {"depth", "width_scale", "symmetry", "symmetry_strength", "scalers"}
    if experiment.initialise.width != "even":  # so what was made before there was another is kept
        rule.add("width")
    settings["resampling"] = experiment.initialise.model_dump(mode="json", include=rule)
    if experiment.evaluate.scaler_steps:
        settings["recipe"] = experiment.initialise.model_dump(mode="json", include={"recipe"})
    return settings
