"""What stage 2 reads: a subset's images are unchanged beside cached logits, and augmented without them."""

import pytest
import torch

from pipelines.config import Experiment, load
from pipelines.convert import convert
from pipelines.data import Dataset
from pipelines.initialise import _key
from pipelines.trial import _batches
from tests.pipelines.support import ROOT
from tests.wave.models import exact, spec_of, tiny
from wave import Family, TargetSpec, Templates, condense

CACHED = ("initialise.teacher_logits=true",)
AUGMENTED = [("initialise.teacher_logits=false",), (*CACHED, "initialise.recipe.kl_weight=0.0")]
"""The second has no teacher whose logits could be cached."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return convert("digits", "", tmp_path_factory.mktemp("trial") / "data")


def experiment(sets: tuple[str, ...], hflip: float) -> Experiment:
    file = ROOT / "pipelines/experiments/digits.toml"
    return load(file, (f"data.hflip={hflip}", "initialise.subset=64", *sets))


@pytest.mark.parametrize("sets", AUGMENTED, ids=["not cached", "no teacher"])
def test_augmentation_takes_effect_on_a_subset_without_cached_logits(dataset: Dataset, sets: tuple[str, ...]) -> None:
    images, labels = dataset.arrays("train", limit=64)
    arrays = {"train_images": images, "train_labels": labels}
    read = []
    for chosen in (CACHED, sets):
        one = experiment(chosen, hflip=1.0)
        assert one.initialise.recipe is not None
        read.append(next(_batches(one, dataset, arrays, one.initialise.recipe, 8)[0](0)).images)
    torch.testing.assert_close(read[1], read[0].flip(3))
    assert not read[1].equal(read[0])


@pytest.mark.parametrize("sets", [CACHED, *AUGMENTED], ids=["cached", "not cached", "no teacher"])
def test_the_key_of_a_size_holds_augmentation_where_it_takes_effect(dataset: Dataset, sets: tuple[str, ...]) -> None:
    model = tiny()
    auxiliary = condense(model, spec_of(model, count=4), size=TargetSpec(16, 1))
    templates = Templates.of(auxiliary, Family.of(model), exact(), {})
    keys = [_key(experiment(sets, hflip), dataset, templates, TargetSpec(16, 2)) for hflip in (0.0, 0.5)]
    assert (keys[0] != keys[1]) == (sets in AUGMENTED)
