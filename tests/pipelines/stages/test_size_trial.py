"""What stage 2 reads: a subset's images are unchanged beside cached logits, and augmented without them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipelines.config.experiment import Experiment, load
from pipelines.data.convert.convert import convert
from pipelines.data.dataset import Dataset
from pipelines.stages import size_trial as trial
from pipelines.stages.initialise import _key
from pipelines.stages.size_trial import _batches
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


def test_a_trial_saves_by_the_clock_and_goes_on_from_there(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trial, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(trial, "teller", lambda: print)
    one = experiment(("initialise.recipe.steps=40", "initialise.recipe.log_every=1", "initialise.subset=64"), hflip=0.0)
    assert one.initialise.recipe is not None
    images, labels = dataset.arrays("train", limit=64)
    arrays = {"train_images": images, "train_labels": labels}
    batches, steps = _batches(one, dataset, arrays, one.initialise.recipe, 8)
    state, kept = tmp_path / "state.pt", trial._save

    def killed(path: Path, content: dict[str, Any]) -> None:
        kept(path, content)
        if content["trainer"]["step"] == 3:  # of 40: no quarter is done
            raise KeyboardInterrupt

    def train() -> Any:
        model = replace(Family.of(tiny()), in_chans=1).create(TargetSpec(16, 1, img_size=8, num_classes=10))
        return trial._train(model, recipe, batches, steps, None, "d016-l01", state, "key", 0, "cpu")

    recipe = one.initialise.recipe
    monkeypatch.setattr(trial, "_save", killed)
    with pytest.raises(KeyboardInterrupt):
        train()
    monkeypatch.setattr(trial, "_save", kept)
    train()
    assert "d016-l01: resumed at step 3/40" in capsys.readouterr().out
