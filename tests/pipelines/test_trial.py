"""What stage 2 reads: a subset's images are unchanged beside cached logits, and augmented without them."""

from pathlib import Path

import torch

from pipelines.config import load
from pipelines.convert import convert
from pipelines.trial import _batches
from tests.pipelines.support import ROOT


def test_augmentation_takes_effect_on_a_subset_without_cached_logits(tmp_path: Path) -> None:
    dataset = convert("digits", "", tmp_path / "data")
    images, labels = dataset.arrays("train", limit=64)
    arrays = {"train_images": images, "train_labels": labels}
    read = {}
    for cached in ("true", "false"):
        sets = ("data.hflip=1.0", "initialise.subset=64", f"initialise.teacher_logits={cached}")
        experiment = load(ROOT / "pipelines/experiments/digits.toml", sets)
        recipe = experiment.initialise.recipe
        assert recipe is not None
        read[cached] = next(_batches(experiment, dataset, arrays, recipe, 8)[0](0)).images
    torch.testing.assert_close(read["false"], read["true"].flip(3))
    assert not read["false"].equal(read["true"])
