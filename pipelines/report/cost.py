"""Total cost against the number of sizes: ours with stage 1, direct training, a baseline without."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipelines.comparison.cells import OURS, size_of
from pipelines.report.evidence import Evidence, Row, Score, StudyEvidence
from pipelines.report.tables import Table, Text
from pipelines.runtime.console import scaled
from pipelines.stages.cost import BACKWARD
from wave.spec import TargetSpec

DIRECT = "timm_default"
Unit = Literal["images", "macs"]
UNITS: dict[Unit, str] = {"images": "image passes", "macs": "multiply-accumulates"}


@dataclass(frozen=True)
class Cost:
    """What ``sizes`` cost in one unit: a fixed part and one per size, ours and direct training."""

    unit: Unit
    sizes: Sequence[TargetSpec]
    steps: tuple[int, int]
    stage1: float
    ours: Sequence[float]
    direct: Sequence[float]
    ancestor: float | None

    def break_even(self, with_ancestor: bool = False) -> int | None:
        """The least number of average sizes from which ours is cheaper; None if it never is."""
        saved = (sum(self.direct) - sum(self.ours)) / len(self.sizes)
        fixed = self.stage1 + (self.ancestor or 0.0 if with_ancestor else 0.0)
        return math.floor(fixed / saved) + 1 if saved > 0 else None


def costs(evidence: Evidence) -> list[Cost]:
    """In image passes and in multiply-accumulates; empty where any part of it was not measured."""
    pair = paired(evidence)
    fixed = _stage1(evidence)
    if pair is None or fixed is None:
        return []
    (ours, first), (direct, second), sizes = pair
    result: list[Cost] = []
    for unit in UNITS:
        mine = [float(row_at(ours, OURS, s, first)[unit]) for s in sizes]
        theirs = [float(row_at(direct, DIRECT, s, second)[unit]) for s in sizes]
        own = _ancestor(evidence, unit)
        result.append(Cost(unit, sizes, (first, second), fixed[unit], mine, theirs, own))
    return result


def paired(evidence: Evidence) -> tuple[tuple[StudyEvidence, int], tuple[StudyEvidence, int], list[TargetSpec]] | None:
    """The study of ours alone and that of direct training alone, each with its most steps, and the
    sizes that were measured in both."""
    mine, direct = evidence.only(OURS), evidence.only(DIRECT)
    if not mine or not direct:
        return None
    ours, theirs = mine[0], max(direct, key=lambda f: (max(f.steps), len(f.cells.sizes)))
    first, second = max(ours.steps), max(theirs.steps)
    sizes: list[TargetSpec] = []
    for size in ours.cells.sizes:
        scores = ours.score(OURS, size, first), theirs.score(DIRECT, size, second)
        if None not in scores:
            sizes.append(size)
    return ((ours, first), (theirs, second), sizes) if sizes else None


def row_at(found: StudyEvidence, method: str, size: TargetSpec, steps: int) -> Row:
    """The first seed's row."""
    return next(r for r in found.of(method, size) if r["steps"] == steps)


def _stage1(evidence: Evidence) -> dict[Unit, float] | None:
    """As a row of ours says."""
    for row in evidence.rows:
        if row["method"] == OURS and "stage1_images" in row:
            return {"images": row["stage1_images"], "macs": row["stage1_macs"]}
    return None


def _ancestor(evidence: Evidence, unit: Unit) -> float | None:
    """Training the ancestor: its images, and what one image costs by any row of its size."""
    recipe, source = evidence.experiment.ancestor.recipe, evidence.source
    if recipe is None or recipe.steps is None:
        return None
    images = recipe.steps * recipe.batch_size
    if unit == "images":
        return float(images)
    for row in evidence.rows:
        if size_of(row) == TargetSpec(source.embed_dim, source.depth) and row["images"]:
            return images * row["macs"] / row["images"]
    return None


def cost_table(found: Sequence[Cost]) -> Table:
    """What n sizes cost, and from which n ours is cheaper."""
    rows: list[list[Text]] = []
    for cost in found:
        n = len(cost.sizes)
        total = cost.stage1 + sum(cost.ours)
        even, whole = cost.break_even(), cost.break_even(with_ancestor=True)
        numbers = [cost.stage1, sum(cost.ours) / n, sum(cost.direct) / n, total, sum(cost.direct)]
        last = "unknown" if cost.ancestor is None else _n(whole)
        shown = [Text(_three_digits(number)) for number in numbers]
        rows.append([Text(UNITS[cost.unit]), *shown, Text(_n(even), bold=True), Text(last)])
    first, second = found[0].steps
    n = len(found[0].sizes)
    note = (
        f"Training only: a step is {BACKWARD} forward passes, the teacher's in stage 1 are one each. "
        "Steps are of one size of average cost; the last column counts the ancestor's own training as "
        "ours."
    )
    head = ["", "stage 1", f"{first} steps", f"{second} steps"]
    head += [f"ours, {n} sizes", f"direct, {n} sizes", "break-even n", "with ancestor"]
    return Table("Total cost and break-even", head, rows, note=note)


def _three_digits(value: float) -> str:
    number, letter = scaled(value)
    return f"{number:.3g} {letter}".rstrip()


def _n(n: int | None) -> str:
    return "never" if n is None else str(n)


def against_direct(evidence: Evidence) -> Table | None:
    """Ours after few steps against direct training for many: every size of both, every seed there is."""
    pair = paired(evidence)
    if pair is None:
        return None
    (ours, first), (direct, second), _ = pair
    taught = _distilled_alone(evidence)
    steps = [s for s in direct.steps if s >= first]
    rows: list[list[Text]] = []
    for size in ours.sizes:
        mine = [_every_seed(evidence, OURS, size=size, steps=s, budget=first) for s in (0, first)]
        theirs = [_every_seed(evidence, DIRECT, size=size, steps=s, budget=second) for s in steps]
        ahead = [Text(_ahead(score, theirs[-1])) for score in mine]
        row = [Text(size.title), *map(_cell, mine), *ahead, *map(_cell, theirs)]
        if taught is not None:
            row.append(Text(""))
            if size in taught.cells.sizes:
                row[-1] = _cell(taught.score(DIRECT, size, max(taught.steps)))
        rows.append(row)
    head = ["size", "ours at 0", f"ours at {first}", "ahead at 0", f"ahead at {first}"]
    head += [f"direct at {s}" for s in steps]
    note = (
        f"Direct training is one schedule of {second} steps from {DIRECT}; it was read off at the "
        f"steps before. Where no spread is given there is one seed. Ahead: of it at {second}."
    )
    if taught is not None:
        head.append(f"distilled at {max(taught.steps)}")
        note += " Distilled: the same with the losses of stage 1 instead of the labels alone."
    return Table(f"{first} steps against {second}", head, rows, note=note)


def _distilled_alone(evidence: Evidence) -> StudyEvidence | None:
    """The first study of direct training with the losses of stage 1."""
    for found in evidence.studies:
        if found.study.distilled and found.study.methods == [DIRECT]:
            return found
    return None


def _ahead(ours: Score | None, theirs: Score | None) -> str:
    if ours is None or theirs is None:
        return "missing"
    return f"{100 * (ours.mean - theirs.mean):+.2f}"


def _cell(score: Score | None) -> Text:
    return Text("missing", faint=True) if score is None else Text(str(score))


def _every_seed(evidence: Evidence, method: str, *, size: TargetSpec, steps: int, budget: int) -> Score | None:
    """Of all studies on the ancestor's data, after ``steps`` of one schedule of ``budget`` steps."""
    rows = [r for f in evidence.plain if method in f.study.methods for r in f.of(method, size)]
    kept = {r["seed"]: r["accuracy"] for r in rows if (r["steps"], r["budget"]) == (steps, budget)}
    return Score.of(list(kept.values()))
