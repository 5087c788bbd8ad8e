"""The cells of one study, the trials that choose learning rates, and what no method can reach."""

from collections.abc import Mapping, Sequence
from functools import cached_property

from pipelines.comparison.cells import Cell, unreachable
from pipelines.comparison.results_log import ResultsLog
from pipelines.config.comparison import Study
from wave.spec import TargetSpec


class StudyCells:
    """The cells of a study.

    Args:
        study: Its settings.
        source: The ancestor's size.
        rates: Learning rates of a study that names none.
        dataset: The name of the data set that the cells are trained on.
        transfer: Whether that data set is another than the ancestor's.
    """

    def __init__(
        self,
        study: Study,
        source: TargetSpec,
        *,
        rates: Sequence[float],
        dataset: str,
        transfer: bool,
    ) -> None:
        self.study, self.source, self.dataset, self.transfer = study, source, dataset, transfer
        self.rates = study.rates(rates)
        self.sizes = [size.spec() for size in study.sizes]

    @cached_property
    def reach(self) -> dict[str, list[str | None]]:
        """For each method and size the reason why the method cannot make the size, or None."""
        methods = self.study.methods
        return {m: [unreachable(m, self.source, size) for size in self.sizes] for m in methods}

    def reached(self, method: str) -> list[TargetSpec]:
        """The sizes that a method can make."""
        reasons = zip(self.sizes, self.reach[method], strict=True)
        return [size for size, reason in reasons if reason is None]

    def trials(self) -> dict[str, list[Cell]]:
        """For each method that reaches a size one cell per learning rate, on held-out images.

        They have the first size that the method reaches and the first seed.
        """
        found: dict[str, list[Cell]] = {}
        for method in self.study.methods:
            for size in self.reached(method)[:1]:
                seed = self.study.seeds[0]
                found[method] = [self._cell(method, size, seed=seed, lr=lr, held_out=True) for lr in self.rates]
        return found

    def needed_trials(self) -> list[Cell]:
        """The trials, all methods' together; none where there is only one rate to choose."""
        if len(self.rates) == 1:
            return []
        return [cell for trials in self.trials().values() for cell in trials]

    def measured(self, rates: Mapping[str, float]) -> list[Cell]:
        """The cells that the study reports, with each method's learning rate.

        Seeds are outermost: an interrupted comparison has every method and size once before any of
        them twice.
        """
        held_out = self.study.held_out
        return [
            self._cell(method, size, seed=seed, lr=lr, held_out=held_out)
            for seed in self.study.seeds
            for method, lr in rates.items()
            for size in self.reached(method)
        ]

    def best_rates(self, log: ResultsLog) -> dict[str, float]:
        """Each method's best learning rate; the first where the log has no trial."""
        return {m: log.best_rate(trials) or self.rates[0] for m, trials in self.trials().items()}

    def _cell(self, method: str, size: TargetSpec, *, seed: int, lr: float, held_out: bool) -> Cell:
        return Cell(
            method,
            size.embed_dim,
            depth=size.depth,
            seed=seed,
            lr=lr,
            steps=tuple(self.study.steps),
            dataset=self.dataset,
            transfer=self.transfer,
            held_out=held_out,
            distilled=self.study.distilled,
            num_heads=size.num_heads,
            mlp_ratio=size.mlp_ratio,
        )
