"""Variants of our method: the experiment that each of them stands for."""

from pipelines.comparison.cells import OURS
from pipelines.config.experiment import Experiment, parse
from pipelines.config.toml import apply_overrides, overridden
from wave.baselines import BASELINES
from wave.errors import WaveError


def variants(experiment: Experiment) -> dict[str, Experiment]:
    """The experiment of every method of ours by its name, and "" for the comparison's own; unknown methods and
    settings of a variant that cannot be are a :class:`WaveError`."""
    plain = experiment.model_dump(mode="json")
    found = {"": experiment, OURS: experiment}
    for variant in experiment.evaluate.variants:
        keys = overridden(variant.set)
        found[variant.name] = parse(apply_overrides(plain, variant.set), f"evaluate.variants: {variant.name}", keys)
    for study in experiment.evaluate.studies:
        for method in study.methods:
            if method not in found and method not in BASELINES:
                known = ", ".join([OURS, *BASELINES, *(v.name for v in experiment.evaluate.variants)])
                raise WaveError(f"evaluate.studies: {study.name}: {method!r} is unknown; known are {known}")
    return found
