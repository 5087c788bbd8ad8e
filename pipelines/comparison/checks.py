"""What a comparison refuses before anything is trained."""

from collections.abc import Mapping

from pipelines.config.comparison import Study
from pipelines.config.experiment import Experiment
from pipelines.data.dataset import Dataset
from wave.errors import WaveError


def check_held_out(experiment: Experiment, study: Study, dataset: Dataset) -> None:
    """Raise :class:`WaveError` for a study that needs held-out images on a data set that has none."""
    rates = study.rates(experiment.evaluate.learning_rates)
    if (study.held_out or len(rates) > 1) and not dataset.num_rows("held_out"):
        needs = "measures on" if study.held_out else f"chooses between {len(rates)} learning rates by"
        raise WaveError(
            f"evaluate.studies: {study.name}: {needs} held-out images, and {dataset.path} has none; "
            f"set another data.path and data.held_out = {dataset.num_rows('train') // 10}"
            + ("" if study.held_out else ", or one rate")
        )


def check_transfer(dataset: Dataset, others: Mapping[str, Dataset]) -> None:
    """Raise :class:`WaveError` for data of a study, by its name, that the ancestor's models cannot be trained on or
    that results could not tell from another's."""
    folders = {dataset.path.name: dataset.path}
    for study, other in others.items():
        where = f"evaluate.studies: {study}: {other.path}"
        for what, own, found in (
            ("classes", len(dataset.classes), len(other.classes)),
            ("channels", dataset.shape[0], other.shape[0]),
        ):
            if own != found:
                raise WaveError(f"{where} has {found} {what}, and the ancestor is for {own}; give data with {own}")
        if folders.setdefault(other.path.name, other.path).resolve() != other.path.resolve():
            text = f"and {folders[other.path.name]} have the same name, by which results tell data apart; rename one"
            raise WaveError(f"{where} {text}")
