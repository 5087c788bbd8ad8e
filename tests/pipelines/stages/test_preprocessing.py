"""One preprocessing, saved and used: timm's own validation of a saved model gives the registry's accuracy."""

import io
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

from pipelines.config.experiment import load
from pipelines.data.convert.convert import convert
from pipelines.data.dataset import Dataset
from pipelines.stages.initialise import _key
from pipelines.stages.size_trial import evaluated
from tests.pipelines.support import ROOT
from tests.wave.models import exact, spec_of, tiny
from wave import Family, TargetSpec, Templates, condense
from wave.export import save_model
from wave.measure import accuracy

SIDES = [(40, 40), (64, 48), (33, 90), (120, 120), (32, 32), (200, 70)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Image files of mixed sizes and shapes."""
    folder = tmp_path_factory.mktemp("mixed")
    rng = np.random.default_rng(0)
    for split, count in (("train", 2), ("val", 60)):
        for label in ("a", "b", "c"):
            (folder / "source" / split / label).mkdir(parents=True)
            for number in range(count):
                width, height = SIDES[number % len(SIDES)]
                coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
                image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
                image.save(folder / "source" / split / label / f"{number}.png")
    return convert("imagefolder", str(folder / "source"), folder / "data", image_size=32)


@pytest.mark.parametrize("side", [32, 48], ids=["the data's size", "another size"])
def test_timm_sees_what_was_evaluated(dataset: Dataset, tmp_path: Path, side: int) -> None:
    torch.manual_seed(1)
    size = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": side, "patch_size": 8, "num_classes": 3}
    model = timm.create_model("vit_tiny_patch16_224", **size).eval()
    for parameter in model.parameters():  # so that small differences of pixels change answers
        parameter.data.normal_(0, 0.3)
    save_model(model, tmp_path / "m", dataset.mean, dataset.std, dataset.classes, dataset.preprocessing)
    experiment = load(ROOT / "pipelines/experiments/digits.toml", ())
    ours = accuracy(model, evaluated(experiment, dataset, {}, side)(0), "cpu")

    pulled = timm.create_model(f"local-dir:{tmp_path / 'm'}", pretrained=True).eval()
    transform = create_transform(**resolve_model_data_config(pulled))
    right = total = 0
    for shard in dataset.shards["test"]:
        for index in range(len(shard.groups)):
            files, labels = shard.group(index, dataset.meta)
            for file, label in zip(files, labels, strict=True):
                image = Image.open(io.BytesIO(file.as_py())).convert("RGB")
                with torch.no_grad():
                    right += int(pulled(transform(image)[None]).argmax() == label)  # type: ignore[operator, union-attr]
                total += 1
    assert total == 180
    assert ours == right / total


def test_keys_of_raw_sizes_stay_and_those_of_encoded_ones_change(dataset: Dataset, tmp_path: Path) -> None:
    raw = convert("digits", "", tmp_path / "digits")
    assert raw.preprocessing == {} and raw.at(64) is raw
    model = tiny()
    auxiliary = condense(model, spec_of(model, count=4), size=TargetSpec(16, 1))
    templates = Templates.of(auxiliary, Family.of(model), exact(), {})
    experiment = load(ROOT / "pipelines/experiments/digits.toml", ())
    with pytest.MonkeyPatch.context() as patch:
        keys = [_key(experiment, data, templates, TargetSpec(16, 2)) for data in (raw, dataset)]
        patch.setattr(Dataset, "preprocessing", {})
        before = [_key(experiment, data, templates, TargetSpec(16, 2)) for data in (raw, dataset)]
    assert keys[0] == before[0]
    assert keys[1] != before[1], "made with another crop in its config.json: made again"
