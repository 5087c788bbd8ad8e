"""Choices: of a study on held-out images one table with what each method changes and its mean over sizes."""

from collections.abc import Mapping, Sequence

from pipelines.config.experiment import Experiment
from pipelines.report.evidence import Found
from pipelines.report.tables import Table, Text
from wave.spec import TargetSpec


def choice_table(found: Found, experiments: Mapping[str, Experiment]) -> Table:
    """Method, what it changes, and its mean at every number of steps, over the sizes that the first method's stage 1
    draws: it is what the others compare with. Where it draws none of the study's, over all of them."""
    methods = found.study.methods
    sets = {v.name: v.set for v in experiments[""].evaluate.variants}
    changed = differences({method: sets.get(method, []) for method in methods})
    drawn = set(experiments[methods[0]].distil.sampled) if methods[0] in experiments else set[TargetSpec]()
    inside = [size for size in found.sizes if size in drawn]
    sizes, which = (inside, "Sizes that stage 1 draws") if inside else (found.sizes, "All sizes of the study")
    rows: list[list[Text]] = []
    for method in methods:
        means = [found.mean(method, steps, sizes) for steps in found.steps]
        shown = [Text("missing", faint=True) if mean is None else Text(f"{100 * mean:.2f}") for mean in means]
        rows.append([Text(method), Text(changed[method]), *shown])
    head = ["method", "what it sets", *(f"after {n} steps" if n else "at step 0" for n in found.steps)]
    note = f"{which}; of the settings, those that not all methods of the study share."
    return Table(f"{found.study.name}: mean of {len(sizes)} sizes", head, rows, note)


def differences(sets: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Method -> its settings but those that all of them share."""
    shared = set.intersection(*map(set, sets.values())) if sets else set[str]()
    return {name: ", ".join(s for s in entries if s not in shared) for name, entries in sets.items()}
