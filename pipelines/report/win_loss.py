"""Where we win and lose: every baseline against ours, cell by cell, by more than chance or not."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from pipelines.comparison.cells import OURS, is_ours
from pipelines.report.evidence import Score, StudyEvidence
from pipelines.report.tables import Table, Text
from wave.spec import TargetSpec

DISAGREE = 1 / 16
"""Share of test images on which two models of about equal accuracy give different answers."""

Judged = tuple[str, TargetSpec, int]
"""Baseline, size and steps of a cell."""


@dataclass
class WinLoss:
    """Cells of a study won, level and lost against one baseline, as texts that say by how much."""

    baseline: str
    won: list[str] = field(default_factory=list)
    level: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @property
    def any_cell(self) -> bool:
        """Whether any cell was judged."""
        return bool(self.won or self.level or self.lost)


def noise(found: StudyEvidence) -> float:
    """The standard error of a difference between two models on the study's test images."""
    return math.sqrt(DISAGREE / found.images)


def rule(found: StudyEvidence) -> str:
    """How a study's cells are judged, for readers."""
    return (
        "A cell is one size after one number of steps against one baseline, judged in the first study "
        "that has it; steps before the last are read off one schedule. Won or lost means that the "
        "means differ by more than the larger of the two standard deviations over seeds and by more "
        f"than {100 * noise(found):.2g} points (about one standard error on {found.images:,} test "
        f"images between two models that disagree on {100 * DISAGREE:.0f} % of them), level that they "
        "do not. Seeds change the order of batches and what is drawn at random, not the ancestor or a "
        "stage 1. A difference is in points of accuracy."
    )


def win_loss(found: StudyEvidence, judged: set[Judged] | None = None) -> list[WinLoss]:
    """Of every baseline in a study that has ours; none of a study without ours.

    A cell counts where both were measured, if it is not in ``judged``, to which it is added. Step 0
    on other data than the ancestor's is a classifier drawn at random and does not count.
    """
    if OURS not in found.study.methods:
        return []
    judged = set() if judged is None else judged
    counted = [steps for steps in found.steps if steps or not found.cells.transfer]
    least = noise(found)
    result: list[WinLoss] = []
    for baseline in found.study.methods:
        if is_ours(baseline):
            continue
        against = WinLoss(baseline)
        for size in found.cells.sizes:
            for steps in counted:
                ours, theirs = (found.score(m, size, steps) for m in (OURS, baseline))
                if ours is None or theirs is None or (baseline, size, steps) in judged:
                    continue
                judged.add((baseline, size, steps))
                _judge(against, f"{size.title} at {steps}", ours=ours, theirs=theirs, least=least)
        result.append(against)
    return result


def _judge(against: WinLoss, cell: str, *, ours: Score, theirs: Score, least: float) -> None:
    """Add a cell to where it belongs; ``least`` is a difference that is none."""
    difference = theirs.mean - ours.mean
    text = f"{cell} ({100 * difference:+.1f})"
    if abs(difference) <= max(ours.spread, theirs.spread, least) + 1e-9:
        against.level.append(text)
    elif difference > 0:
        against.lost.append(text)
    else:
        against.won.append(text)


def win_loss_table(found: StudyEvidence, counted: Sequence[WinLoss]) -> Table:
    """Counts, one line per baseline."""
    rows: list[list[Text]] = []
    for one in counted:
        numbers = [len(cells) for cells in (one.won, one.level, one.lost)]
        rows.append([Text(one.baseline), *(Text(str(number)) for number in numbers)])
    title = f"{found.study.name}: ours against each baseline"
    return Table(title, ["baseline", "won", "level", "lost"], rows)


def losses(counted: Sequence[WinLoss]) -> list[str]:
    """One line per baseline that is ahead anywhere: where, and by how many points."""
    return [f"{one.baseline}: " + ", ".join(one.lost) for one in counted if one.lost]
