"""Evidence: a comparison's rows read back, study by study, and what is missing."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from pipelines.ancestors.reading import load_directory
from pipelines.comparison.cells import Cell, size_of
from pipelines.comparison.evaluate import results_path
from pipelines.comparison.results_log import ResultsLog
from pipelines.comparison.study_cells import StudyCells
from pipelines.comparison.variants import variants
from pipelines.config.comparison import Study
from pipelines.config.experiment import Experiment
from pipelines.runtime.files import absolute
from pipelines.runtime.workspace import Workspace
from wave.baselines import BASELINES
from wave.errors import WaveError
from wave.family import Family
from wave.spec import TargetSpec

Row = dict[str, Any]
_MOST_IMAGES = 10_000_000
"""Test images that a comparison can have; fractions of more are not told apart."""


class Score(NamedTuple):
    """Accuracy over seeds: mean, standard deviation (0 of one seed), number of seeds."""

    mean: float
    spread: float
    seeds: int

    @classmethod
    def of(cls, accuracies: list[float]) -> "Score | None":
        """None of nothing."""
        if not accuracies:
            return None
        spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
        return cls(statistics.mean(accuracies), spread, len(accuracies))

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f}" + (f" ±{100 * self.spread:.1f}" if self.seeds > 1 else "")


@dataclass(frozen=True)
class StudyEvidence:
    """One study and the rows of its cells, without those by which learning rates were chosen."""

    study: Study
    cells: StudyCells
    rows: list[Row]

    @property
    def steps(self) -> list[int]:
        return sorted({0, *self.study.steps})

    @property
    def sizes(self) -> list[TargetSpec]:
        """By width, then depth."""
        return sorted(self.cells.sizes, key=lambda s: (s.embed_dim, s.depth))

    @property
    def images(self) -> int:
        """How many images accuracies were measured on.

        Each of them is a whole number of images by this number: their least common denominator.
        """
        fractions = [Fraction(row["accuracy"]).limit_denominator(_MOST_IMAGES) for row in self.rows]
        return math.lcm(*(fraction.denominator for fraction in fractions))

    def score(self, method: str, size: TargetSpec, steps: int) -> Score | None:
        """None where there is no row."""
        return Score.of([r["accuracy"] for r in self.of(method, size) if r["steps"] == steps])

    def of(self, method: str, size: TargetSpec) -> list[Row]:
        """All rows of a method at a size."""
        return [r for r in self.rows if r["method"] == method and size_of(r) == size]

    def absent(self, method: str, size: TargetSpec, steps: int) -> str:
        """Why there is no score: the method cannot make the size, starts later, or was not run."""
        why = self.cells.reach[method][self.cells.sizes.index(size)]
        if why:
            return f"cannot: {why}"
        spent = BASELINES[method].steps if method in BASELINES else 0
        spent = min((row["steps"] for row in self.of(method, size)), default=spent)
        return f"starts at {spent}" if spent > steps else "missing"

    @property
    def shared(self) -> list[TargetSpec]:
        """The sizes that every method reaches which reaches any."""
        reached = [set(self.cells.reached(method)) for method in self.study.methods]
        some = [sizes for sizes in reached if sizes]
        return [size for size in self.cells.sizes if all(size in sizes for sizes in some)]

    def mean(self, method: str, steps: int, sizes: Sequence[TargetSpec] | None = None) -> float | None:
        """Over these sizes, else over the shared ones; None unless every one is there."""
        scores = [self.score(method, size, steps) for size in sizes or self.shared]
        known = [score.mean for score in scores if score is not None]
        return statistics.mean(known) if known and len(known) == len(scores) else None


class Evidence:
    """Every study of an experiment with its rows. Raises :class:`WaveError` where there are none."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.workspace = Workspace(absolute(experiment.output, "output"))
        self.path = results_path(experiment, self.workspace)
        if not experiment.evaluate.studies:
            raise WaveError(f"{experiment.name} has no [[evaluate.studies]] to report on")
        if not self.path.is_file():
            raise WaveError(f"{self.path}: no such file; run: python -m pipelines evaluate")
        self.experiments = variants(experiment)
        self.source = self._source()
        log = ResultsLog(self.path, self.experiments)
        self.studies: list[StudyEvidence] = []
        known: set[str] = set()
        for study in experiment.evaluate.studies:
            own = self._cells_of(study)
            measured = own.measured(own.best_rates(log))
            self.studies.append(StudyEvidence(study, own, log.rows(measured)))
            every: list[Cell] = list(measured)
            for trials in own.trials().values():
                every += trials
            known |= {log.key(cell) for cell in every}
        self.rows = [row for found in self.studies for row in found.rows]
        if not self.rows:
            raise WaveError(f"{self.path} holds no row made by the settings of {experiment.name}; run evaluate again")
        self.others = len(log.kept.keys() - known)

    def _cells_of(self, study: Study) -> StudyCells:
        return StudyCells(
            study,
            self.source,
            rates=self.experiment.evaluate.learning_rates,
            dataset=(study.data or self.experiment.data).name,
            transfer=study.data is not None,
        )

    def _source(self) -> TargetSpec:
        """The ancestor's size: as the settings say, else as the workspace holds it."""
        named = self.experiment.ancestor.model_args
        width, depth = named.get("embed_dim"), named.get("depth")
        if isinstance(width, int) and isinstance(depth, int):
            return TargetSpec(width, depth)
        return Family.of(load_directory(self.workspace.ancestor)[0]).size

    def only(self, *methods: str) -> list[StudyEvidence]:
        """The studies of exactly these methods on the ancestor's data and its labels."""
        return [f for f in self.plain if f.study.methods == list(methods)]

    @property
    def plain(self) -> list[StudyEvidence]:
        """The studies on the ancestor's data and its labels, measured on its test set."""
        special = (f.cells.transfer or f.study.distilled or f.study.held_out for f in self.studies)
        return [f for f, apart in zip(self.studies, special, strict=True) if not apart]
