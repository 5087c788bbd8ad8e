"""Grid: the cells of one study, the trials that choose learning rates among them, and what cannot be reached."""

from collections.abc import Mapping
from functools import cached_property

from pipelines.comparison.cells import Cell, unreachable
from pipelines.comparison.results_log import Book
from pipelines.config.comparison import Study
from wave.spec import TargetSpec


class Grid:
    """The cells of a study from an ancestor of size ``source``, on the data set of a name; ``transfer`` when that is
    not the ancestor's. ``rates`` are used where the study names none."""

    def __init__(self, study: Study, source: TargetSpec, rates: list[float], dataset: str, transfer: bool) -> None:
        self.study, self.source, self.dataset, self.transfer = study, source, dataset, transfer
        self.rates = study.rates(rates)
        self.sizes = [size.spec() for size in study.sizes]

    @cached_property
    def reach(self) -> dict[str, list[str | None]]:
        """For each method why it cannot make each of the sizes, or None."""
        return {m: [unreachable(m, self.source, size) for size in self.sizes] for m in self.study.methods}

    def reached(self, method: str) -> list[TargetSpec]:
        """The sizes that a method can make."""
        return [size for size, why in zip(self.sizes, self.reach[method], strict=True) if why is None]

    def trials(self) -> dict[str, list[Cell]]:
        """A cell a learning rate on held-out images, at the first size and from the first seed; of each method that
        reaches any."""
        methods = [m for m in self.study.methods if self.reached(m)]
        seed = self.study.seeds[0]
        return {m: [self._cell(m, self.reached(m)[0], seed, lr, True) for lr in self.rates] for m in methods}

    def cells(self, best: Mapping[str, float]) -> list[Cell]:
        """Seeds outermost: an interrupted comparison has every method and size once before any of them twice."""
        held = self.study.held_out
        seeds = self.study.seeds
        return [self._cell(m, s, seed, best[m], held) for seed in seeds for m in best for s in self.reached(m)]

    def best(self, book: Book) -> dict[str, float]:
        """Each method's best learning rate; the first where no trial is kept."""
        return {m: book.best_rate(trials) or self.rates[0] for m, trials in self.trials().items()}

    def _cell(self, method: str, size: TargetSpec, seed: int, lr: float, held_out: bool) -> Cell:
        steps = tuple(self.study.steps)
        where = (self.dataset, self.transfer, held_out, self.study.distilled)
        return Cell(method, size.embed_dim, size.depth, seed, lr, steps, *where, size.num_heads, size.mlp_ratio)
