"""The ImageNet recipe's own file, run end to end on a made-up ImageFolder: two steps, small widths, one CPU."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer

from tests.pipelines.support import ROOT, command
from wave.export import save_model

FILE = str(ROOT / "pipelines/experiments/imagenet_deit_base.toml")
SMALL = (
    *("data.workers=0", "distil.workers=1", "distil.use_gpu=false", "distil.resources_per_worker={CPU=1}"),
    *("distil.recipe.epochs=", "distil.recipe.steps=2", "distil.recipe.warmup_steps=1", "distil.recipe.batch_size=4"),
    *("distil.sizes={embed_dim=[64], depth=[1]}", "templates.count=8", "initialise.subset=8"),
    *("initialise.recipe.steps=2", "initialise.recipe.warmup_steps=1"),
    "initialise.recipe.batch_size=4",
    *("initialise.resources=[{cpus=1}]", "targets.grid={embed_dim=[64, 128], depth=[1, 2]}"),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An ImageFolder of two classes, and an untrained DeiT of width 128 in place of the downloaded DeiT-B."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for label in ("cat", "dog"):
            (tmp_path / "imagenet" / split / label).mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 256, (40 + i, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "imagenet" / split / label / f"{i}.JPEG")
    torch.manual_seed(0)
    deit = timm.create_model("deit_base_patch16_224", embed_dim=128, depth=2, num_heads=2, num_classes=2)
    assert isinstance(deit, VisionTransformer) and not isinstance(deit, VisionTransformerDistilled)
    save_model(deit, tmp_path / "deit", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_file_runs_on_tiny_data(folder: Path) -> None:
    overrides = [f"--set={o}" for o in (*SMALL, "ancestor.source=local-dir:deit")]
    done = command(folder, "run", FILE, *overrides, timeout=880)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((folder / "runs/imagenet-deit-base/results.json").read_text())
    assert [row["size"] for row in results["sizes"]] == ["d064-l01", "d128-l01", "d064-l02", "d128-l02"]
    origin = json.loads((folder / "runs/imagenet-deit-base/templates/templates.json").read_text())["info"]["ancestor"]
    assert origin["source"] == "local-dir:deit" and origin["key"] and 0 <= origin["accuracy"] <= 1
    model = timm.create_model(f"local-dir:{folder}/runs/imagenet-deit-base/models/d064-l02", pretrained=True)
    assert model(torch.zeros(1, 3, 224, 224)).isfinite().all()
