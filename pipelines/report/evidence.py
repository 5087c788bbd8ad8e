"""A comparison's rows read back: study by study, what every method reached at every size, and what is missing."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipelines.ancestors.reading import load_directory
from pipelines.comparison.cells import size_of
from pipelines.comparison.evaluate import results_path
from pipelines.comparison.grid import Grid
from pipelines.comparison.results_log import Book
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


class Score(NamedTuple):
    """Accuracy over seeds: mean, standard deviation (0 of one seed), seeds."""

    mean: float
    spread: float
    seeds: int

    @classmethod
    def of(cls, accuracies: list[float]) -> "Score | None":
        """None of nothing."""
        spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
        return cls(statistics.mean(accuracies), spread, len(accuracies)) if accuracies else None

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f}" + (f" ±{100 * self.spread:.1f}" if self.seeds > 1 else "")


@dataclass(frozen=True)
class Found:
    """One study and its rows, those by which learning rates were chosen not among them."""

    study: Study
    grid: Grid
    rows: list[Row]

    @property
    def steps(self) -> list[int]:
        return sorted({0, *self.study.steps})

    @property
    def sizes(self) -> list[TargetSpec]:
        """By width, then depth."""
        return sorted(self.grid.sizes, key=lambda s: (s.embed_dim, s.depth))

    def score(self, method: str, size: TargetSpec, steps: int) -> Score | None:
        """None where nothing is kept."""
        return Score.of([r["accuracy"] for r in self.of(method, size) if r["steps"] == steps])

    def of(self, method: str, size: TargetSpec) -> list[Row]:
        """All rows of a method at a size."""
        return [r for r in self.rows if r["method"] == method and size_of(r) == size]

    def absent(self, method: str, size: TargetSpec, steps: int) -> str:
        """Why there is no score: what the method cannot, or that the cell was not run."""
        why = self.grid.reach[method][self.grid.sizes.index(size)]
        spent = BASELINES[method].steps if method in BASELINES else 0
        spent = min((row["steps"] for row in self.of(method, size)), default=spent)
        return f"cannot: {why}" if why else f"starts at {spent}" if spent > steps else "missing"

    @property
    def shared(self) -> list[TargetSpec]:
        """The sizes that every method reaches, of those that reach any."""
        reached = [set(some) for m in self.study.methods if (some := self.grid.reached(m))]
        return [size for size in self.grid.sizes if all(size in some for some in reached)]

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
        rules = experiment.evaluate
        if not rules.studies:
            raise WaveError(f"{experiment.name} has no [[evaluate.studies]] to report on")
        if not self.path.is_file():
            raise WaveError(f"{self.path}: no such file; run: python -m pipelines evaluate")
        self.experiments = variants(experiment)
        book = Book(self.path, self.experiments)
        self.source = self._source()
        own = experiment.data.name
        self.studies: list[Found] = []
        known: set[str] = set()
        for study in rules.studies:
            name = study.data.name if study.data else own
            grid = Grid(study, self.source, rules.learning_rates, name, study.data is not None)
            cells = grid.cells(grid.best(book))
            self.studies.append(Found(study, grid, book.rows(cells)))
            known |= {book.key(cell) for cell in [*cells, *(c for some in grid.trials().values() for c in some)]}
        self.rows = [row for found in self.studies for row in found.rows]
        if not self.rows:
            raise WaveError(f"{self.path} holds no row made by the settings of {experiment.name}; run evaluate again")
        self.others = len(book.kept.keys() - known)

    def _source(self) -> TargetSpec:
        """The ancestor's size: as the settings say, else as the workspace holds it."""
        named = self.experiment.ancestor.model_args
        width, depth = named.get("embed_dim"), named.get("depth")
        if isinstance(width, int) and isinstance(depth, int):
            return TargetSpec(width, depth)
        return Family.of(load_directory(self.workspace.ancestor)[0]).size

    def only(self, *methods: str) -> list[Found]:
        """The studies of exactly these methods on the ancestor's data and its labels."""
        return [f for f in self.plain if f.study.methods == list(methods)]

    @property
    def plain(self) -> list[Found]:
        """The studies on the ancestor's data and its labels, measured on its test set."""
        return [f for f in self.studies if not (f.grid.transfer or f.study.distilled or f.study.held_out)]
