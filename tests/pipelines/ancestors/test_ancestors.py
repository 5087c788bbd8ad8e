"""Ancestors from checkpoints and the registry, a driver killed in stage 1, and sizes unlike the ancestor's."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch
from mlflow import MlflowClient
from safetensors.torch import save_file

from pipelines.ancestors.record import ancestor_key
from pipelines.ancestors.source import foresee, pinned
from pipelines.config.experiment import load
from pipelines.data.convert.convert import convert
from pipelines.data.dataset import open_dataset
from pipelines.runtime.workspace import Workspace
from pipelines.stages.ancestor import obtain
from tests.pipelines.support import PATIENCE, ROOT, command, python, tiny
from wave.errors import WaveError
from wave.storage import Templates

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

SIZE = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 4, "img_size": 8, "in_chans": 1, "num_classes": 10}
TARGETS = (
    "{embed_dim=32, depth=3}",
    "{embed_dim=48, depth=3, num_classes=3}",
    "{embed_dim=48, depth=2, img_size=16, patch_size=2}",
    "{embed_dim=36, depth=2, num_heads=3, mlp_ratio=2.5}",
)
RUN = tiny(
    *("ancestor.source=checkpoint:ancestor.safetensors", "ancestor.recipe=", "distil.recipe.steps=300"),
    "distil.sizes=[{embed_dim=32, depth=2}, {embed_dim=24, depth=2, num_heads=2}]",
    *("initialise.compare_scratch=false", "initialise.recipe.steps=12"),
    *("targets.grid=", f"targets.sizes=[{', '.join(TARGETS)}]"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose driver was killed after stage 1's first checkpoint, and the same command again."""
    folder = tmp_path_factory.mktemp("ancestors")
    torch.manual_seed(0)
    state = timm.create_model("vit_tiny_patch16_224", **cast(dict[str, Any], SIZE)).state_dict()
    save_file(state, folder / "ancestor.safetensors")
    torch.save({"state_dict": state}, folder / "ancestor.pt")
    convert("digits", "", folder / "data/digits")
    with (folder / "killed").open("w") as out:
        driver = subprocess.Popen(
            [sys.executable, "-m", "pipelines", "run", *RUN],
            cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
        until = time.monotonic() + PATIENCE
        while not committed(folder):
            assert driver.poll() is None and time.monotonic() < until, (folder / "killed").read_text()
            time.sleep(0.05)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    assert not (folder / "runs/digits/templates.json").exists(), "stage 1 was over before it was killed"
    done = command(folder, "run", *RUN)
    (folder / "stdout").write_text(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def committed(folder: Path) -> bool:
    """Whether Ray would resume stage 1 from a checkpoint."""
    return any(
        "checkpoint_" in file.read_text()
        for file in folder.glob("runs/digits/ray/templates-*/checkpoint_manager_snapshot.json")
    )


def test_stage_1_goes_on_from_its_checkpoint(folder: Path) -> None:
    (resumed,) = [text for text in (folder / "stdout").read_text().splitlines() if "resumed at step" in text]
    step, steps = (int(n) for n in resumed.removeprefix("stage 1: resumed at step ").split()[0].split("/"))
    assert 0 < step < steps == 300
    assert Templates.load(folder / "runs/digits/templates").info["metrics"]["steps"] == 300


def test_sizes_of_other_classes_images_patches_and_heads_load_with_timm_alone(folder: Path) -> None:
    code = """
        import sys, timm, torch
        from pathlib import Path
        for path in sorted(Path("runs/digits/models").glob("*/")):
            model = timm.create_model(f"local-dir:{path}", pretrained=True).eval()
            side, patch = model.patch_embed.img_size[0], model.patch_embed.patch_size[0]
            out = model(torch.zeros(1, 1, side, side))
            assert out.isfinite().all()
            shape = model.blocks[0].attn.num_heads, model.blocks[0].mlp.fc1.out_features
            print(end=f"{model.embed_dim} {len(model.blocks)} {side} {patch} {out.shape[1]} {shape};")
        assert "wave" not in sys.modules and "pipelines" not in sys.modules
    """
    found = set(python(folder, code).strip(";").split(";"))
    whole = {"32 3 8 4 10 (2, 128)", "48 3 8 4 3 (3, 192)", "48 2 16 2 10 (3, 192)"}
    assert found == {*whole, "36 2 8 4 10 (3, 90)"}


def test_a_torch_file_read_with_weights_only_gives_the_same_ancestor(folder: Path) -> None:
    done = command(folder, "ancestor", *RUN, "--set=ancestor.source=checkpoint:ancestor.pt", "--set=output=torch")
    assert done.returncode == 0, done.stdout + done.stderr
    kept = [(folder / name / "ancestor/model.safetensors").read_bytes() for name in ("torch", "runs/digits")]
    assert kept[0] == kept[1]


def test_a_changed_ancestor_is_never_used_unseen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    shutil.copytree("runs/digits/ancestor", "given")
    sets = [text.removeprefix("--set=") for text in RUN[1:]]
    sets += ["ancestor.source=local-dir:given", "ancestor.architecture=", "ancestor.model_args=", "output=local"]
    experiment, dataset, workspace = load(RUN[0], sets), open_dataset(folder / "data/digits"), Workspace.open("local")
    shutil.copytree("given", workspace.ancestor)
    own = ancestor_key(experiment, dataset)
    workspace.finish(workspace.ancestor, own, {"accuracy": 0.5, "parameters": 1})
    assert obtain(experiment, dataset, workspace)["key"] == own
    (workspace.ancestor / "model.safetensors").write_bytes(b"\0" * 9000)
    for look in (foresee, obtain):
        with pytest.raises(WaveError, match="has changed since it was made; put its files back, or remove it and run"):
            look(experiment, dataset, workspace)
    config = json.loads(Path("given/config.json").read_text())
    config["pretrained_cfg"]["mean"] = [0.9]
    Path("given/config.json").write_text(json.dumps(config))
    assert ancestor_key(experiment, dataset) != own
    assert foresee(experiment, dataset, workspace).mean == (0.9,)


def test_an_alias_that_moved_is_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    sets = [text.removeprefix("--set=") for text in RUN[1:]]
    sets += ["ancestor.source=models:/digits@best", "ancestor.architecture=", "ancestor.model_args=", "output=alias"]
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    aliases = client.get_registered_model("digits").aliases
    dataset, keys = open_dataset(folder / "data/digits"), []
    for name, depth in (("d032-l03", 3), (next(a for a in aliases if a.startswith("d048-l03")), None)):
        client.set_registered_model_alias("digits", "best", str(aliases[name]))
        experiment = pinned(load(RUN[0], sets))
        assert experiment.ancestor.source == f"models:/digits/{aliases[name]}"
        keys.append(ancestor_key(experiment, dataset))
        assert keys[-1] == ancestor_key(pinned(load(RUN[0], sets)), dataset)
        done = command(folder, "ancestor", RUN[0], *(f"--set={text}" for text in sets))
        if depth is None:  # of 3 classes: read again, and refused for the data
            assert done.returncode == 2 and "the ancestor has 3 classes" in done.stderr, done.stderr
            continue
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"ancestor: reading models:/digits/{aliases[name]}" in done.stdout
        kept = [
            (folder / path / "model.safetensors").read_bytes()
            for path in ("alias/ancestor", f"runs/digits/models/{name}")
        ]
        assert kept[0] == kept[1]
    assert keys[0] != keys[1]
