"""Choices: one table per study on held-out images: what each method changes, and its mean."""

from collections.abc import Mapping, Sequence

from pipelines.config.experiment import Experiment
from pipelines.report.evidence import StudyEvidence
from pipelines.report.tables import Table, Text
from wave.spec import TargetSpec


def choice_table(found: StudyEvidence, experiments: Mapping[str, Experiment]) -> Table:
    """Method, what it changes, and its mean at every number of steps.

    The mean is over the sizes that stage 1 of the first method draws, with which the others
    compare; where it draws none of the study's, over all of them.
    """
    methods = found.study.methods
    sets = {v.name: v.set for v in experiments[""].evaluate.variants}
    changed = differences({method: sets.get(method, []) for method in methods})
    first = experiments.get(methods[0])
    drawn: list[TargetSpec] = first.distil.sampled if first is not None else []
    sizes, which = [size for size in found.sizes if size in drawn], "Sizes that stage 1 draws"
    if not sizes:
        sizes, which = found.sizes, "All sizes of the study"
    rows: list[list[Text]] = []
    for method in methods:
        means = [found.mean(method, steps, sizes) for steps in found.steps]
        rows.append([Text(method), Text(changed[method]), *(_shown(mean) for mean in means)])
    after = [f"after {n} steps" if n else "at step 0" for n in found.steps]
    note = f"{which}; of the settings, those that not all methods of the study share."
    title = f"{found.study.name}: mean of {len(sizes)} sizes"
    return Table(title, ["method", "what it sets", *after], rows, note=note)


def _shown(mean: float | None) -> Text:
    return Text("missing", faint=True) if mean is None else Text(f"{100 * mean:.2f}")


def differences(sets: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Method -> its settings but those that all of them share."""
    shared: set[str] = set.intersection(*map(set, sets.values())) if sets else set()
    return {name: ", ".join(s for s in entries if s not in shared) for name, entries in sets.items()}
