"""What a comparison refuses before anything is trained."""

from collections.abc import Mapping

from pipelines.config.comparison import Study
from pipelines.config.experiment import Experiment
from pipelines.data.dataset import Dataset
from wave.errors import WaveError


def check_held_out(experiment: Experiment, study: Study, dataset: Dataset) -> None:
    """Raise :class:`WaveError` for a study that needs held-out images where the data set has none."""
    rates = study.rates(experiment.evaluate.learning_rates)
    if dataset.num_rows("held_out") or not (study.held_out or len(rates) > 1):
        return
    needs, otherwise = "measures on", ""
    if not study.held_out:
        needs, otherwise = f"chooses between {len(rates)} learning rates by", ", or one rate"
    raise WaveError(
        f"evaluate.studies: {study.name}: {needs} held-out images, and {dataset.path} has none; "
        f"set another data.path and data.held_out = {dataset.num_rows('train') // 10}{otherwise}"
    )


def check_transfer(dataset: Dataset, others: Mapping[str, Dataset]) -> None:
    """Raise :class:`WaveError` for a study's data that do not go with ``dataset``, the ancestor's.

    Its models cannot be trained on them, or results could not tell them from another study's.
    ``others`` are by study.
    """
    folders = {dataset.path.name: dataset.path}
    for study, other in others.items():
        where = f"evaluate.studies: {study}: {other.path}"
        for what, own, found in (
            ("classes", len(dataset.classes), len(other.classes)),
            ("channels", dataset.shape[0], other.shape[0]),
        ):
            if own != found:
                raise WaveError(f"{where} has {found} {what}, and the ancestor is for {own}; give data with {own}")
        same_name = folders.setdefault(other.path.name, other.path)
        if same_name.resolve() != other.path.resolve():
            raise WaveError(f"{where} and {same_name} have the same name, by which results tell data apart; rename one")
