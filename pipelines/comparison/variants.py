"""Variants of our method: the experiment that each of them stands for."""

from pipelines.comparison.cells import OURS
from pipelines.config.experiment import Experiment, parse
from pipelines.config.toml import apply_overrides, overridden
from wave.baselines import BASELINES
from wave.errors import WaveError


def variants(experiment: Experiment) -> dict[str, Experiment]:
    """The experiment of every method of ours by its name, and "" for the comparison's own.

    Raises :class:`WaveError` for an unknown method, and for settings that a variant cannot have.
    """
    plain = experiment.model_dump(mode="json")
    found = {"": experiment, OURS: experiment}
    for variant in experiment.evaluate.variants:
        settings = apply_overrides(plain, variant.set)
        where = f"evaluate.variants: {variant.name}"
        found[variant.name] = parse(settings, where, overridden(variant.set))
    for study in experiment.evaluate.studies:
        for method in study.methods:
            if method not in found and method not in BASELINES:
                names = [OURS, *BASELINES, *(v.name for v in experiment.evaluate.variants)]
                raise WaveError(f"evaluate.studies: {study.name}: {method!r} is unknown; known are {', '.join(names)}")
    return found
