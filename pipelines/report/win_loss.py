"""Where we win and lose: every rival against ours, cell by cell, by more than the spread over seeds or not."""

from dataclasses import dataclass, field

from pipelines.comparison.cells import OURS, is_ours
from pipelines.report.evidence import Found
from pipelines.report.tables import Table, Text
from wave.spec import TargetSpec

NOISE = 0.0025
RULE = (
    "A cell is one size after one number of steps against one rival, judged in the first study that has it; steps "
    "before the last are read off one schedule. Won or lost means that the means differ by more than the larger of the "
    f"two standard deviations over seeds and by more than {100 * NOISE:g} points (about one standard error on 10,000 "
    "test images between two models that disagree on 6 % of them; on 360 digits it is 1.3 points), level that they do "
    "not. Seeds change the order of batches and what is drawn at random, not the ancestor or a stage 1. A difference "
    "is in points of accuracy."
)


Judged = tuple[str, TargetSpec, int]
"""Rival, size and steps of a cell."""


@dataclass
class Verdict:
    """Cells of a study won, level and lost against one rival; ``lost`` and ``won`` say which, and by how much."""

    rival: str
    won: list[str] = field(default_factory=list)
    level: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def verdicts(found: Found, judged: set[Judged] | None = None) -> list[Verdict]:
    """Of every rival in a study that has ours; a cell counts where both were measured, if it is not in ``judged``, to
    which it is added. Step 0 on other data than the ancestor's is a classifier drawn at random and does not count."""
    if OURS not in found.study.methods:
        return []
    judged = set() if judged is None else judged
    counted = [s for s in found.steps if s or not found.grid.transfer]
    result: list[Verdict] = []
    for rival in (m for m in found.study.methods if not is_ours(m)):
        verdict = Verdict(rival)
        for size in found.grid.sizes:
            for steps in counted:
                ours, theirs = found.score(OURS, size, steps), found.score(rival, size, steps)
                if ours is None or theirs is None or (rival, size, steps) in judged:
                    continue
                judged.add((rival, size, steps))
                difference, spread = theirs.mean - ours.mean, max(ours.spread, theirs.spread, NOISE)
                text = f"{size.title} at {steps} ({100 * difference:+.1f})"
                level = abs(difference) <= spread + 1e-9
                (verdict.level if level else verdict.lost if difference > 0 else verdict.won).append(text)
        result.append(verdict)
    return result


def verdict_table(found: Found, verdicts: list[Verdict]) -> Table:
    """Counts, a line a rival."""
    rows = [[Text(v.rival), *(Text(str(len(some))) for some in (v.won, v.level, v.lost))] for v in verdicts]
    return Table(f"{found.study.name}: ours against each rival", ["rival", "won", "level", "lost"], rows)


def losses(verdicts: list[Verdict]) -> list[str]:
    """A line a rival that is ahead anywhere: where, and by how many points."""
    return [f"{v.rival}: " + ", ".join(v.lost) for v in verdicts if v.lost]
