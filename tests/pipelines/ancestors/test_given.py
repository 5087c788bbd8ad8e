"""An ancestor from a checkpoint in a run: which weights it has, what is said and kept, its key, and one near chance."""

import argparse
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import timm
import torch

from pipelines.ancestors.chance import near_chance
from pipelines.ancestors.record import ancestor_key
from pipelines.ancestors.source import Source, foresee
from pipelines.config.experiment import load
from pipelines.data.convert.convert import convert
from pipelines.data.dataset import Dataset, open_dataset
from pipelines.runtime.workspace import Workspace
from tests.pipelines.support import command, tiny
from wave.errors import WaveError

MODEL: dict[str, Any] = {
    "img_size": 8, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2, "in_chans": 1, "num_classes": 10
}  # fmt: skip
RUN = tiny(
    "ancestor.source=checkpoint:x.pth.tar",
    "ancestor.recipe=",
    "ancestor.model_args=",
    "ancestor.model_args.num_heads=2",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The digits, and a checkpoint of timm's train.py whose averaged weights are half of the raw ones."""
    monkeypatch.chdir(tmp_path)
    convert("digits", "", tmp_path / "data/digits")
    torch.manual_seed(0)
    state = timm.create_model("vit_tiny_patch16_224", **MODEL).state_dict()
    ema = {name: tensor / 2 for name, tensor in state.items()}
    torch.save({"state_dict": state, "state_dict_ema": ema, "args": argparse.Namespace(lr=1)}, "x.pth.tar")
    return tmp_path


def settings(*more: str) -> list[str]:
    return [text.removeprefix("--set=") for text in RUN[1:]] + list(more)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_says_and_keeps_which_weights_it_took_and_that_they_know_nothing(folder: Path) -> None:
    done = command(folder, "ancestor", *RUN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'averaged (EMA) weights (state_dict_ema) of x.pth.tar; ancestor.weights = "raw" takes' in done.stdout
    assert "ancestor: warning: accuracy 0." in done.stdout
    assert "is near chance, 0.1" in done.stdout
    (record,) = folder.glob("runs/*/ancestor.json")
    assert json.loads(record.read_text())["weights"] == "ema"


def test_the_setting_chooses_and_is_part_of_the_key_only_where_it_is_given(folder: Path) -> None:
    dataset, workspace = open_dataset(folder / "data/digits"), Workspace.open("out")
    keys: set[str] = set()
    for wanted, factor in ((None, 0.5), ("ema", 0.5), ("raw", 1.0)):
        experiment = load(RUN[0], settings(*([f"ancestor.weights={wanted}"] if wanted else [])))
        assert ("weights" in experiment.ancestor.model_dump()) == (wanted is not None)
        found = foresee(experiment, dataset, workspace)
        assert found.which == (wanted or "ema")
        raw = torch.load("x.pth.tar", weights_only=False)["state_dict"]
        assert torch.equal(found.model.state_dict()["cls_token"], raw["cls_token"] * factor)
        keys.add(ancestor_key(experiment, dataset))
    assert len(keys) == 3


def test_a_source_with_one_set_of_weights_has_no_such_setting(folder: Path) -> None:
    with pytest.raises(WaveError, match=r"ancestor\.weights has no effect with source='timm:deit_tiny_patch16_224'"):
        load(
            RUN[0],
            [*settings("ancestor.source=timm:deit_tiny_patch16_224"), "ancestor.architecture=", "ancestor.weights=raw"],
        )
    with pytest.raises(WaveError, match=r"ancestor\.weights='best' should be 'ema' or 'raw'"):
        load(RUN[0], settings("ancestor.weights=best"))


def test_a_backbone_is_refused_before_anything_is_written(folder: Path) -> None:
    state = torch.load("x.pth.tar", weights_only=False)["state_dict"]
    torch.save({name: tensor for name, tensor in state.items() if not name.startswith("head.")}, "x.pth.tar")
    with pytest.raises(WaveError, match=r"x.pth.tar: a backbone, it has no classifier; .*fine-tune it with one"):
        foresee(load(RUN[0], settings()), open_dataset(folder / "data/digits"), Workspace.open("out"))
    assert not list((folder / "out").glob("ancestor*"))


def _data(labels: list[int], classes: int) -> Dataset:
    shards = {"test": (SimpleNamespace(labels=lambda: np.array(labels)),)}
    return cast(Dataset, SimpleNamespace(shards=shards, classes=tuple(map(str, range(classes)))))


@pytest.mark.parametrize(
    ("accuracy", "labels", "classes", "warned"),
    [
        (0.19, list(range(12)) * 2, 12, True),  # a checkpoint of 64 % whose labels were in another order
        (0.64, list(range(12)) * 2, 12, False),
        (0.10, list(range(10)), 10, True),
        (0.30, list(range(10)), 10, False),
        (0.52, [0, 1], 2, True),
        (0.75, [0, 1], 2, False),
        (0.90, [0] * 9 + [1], 2, True),  # what one constant answer scores
        (0.98, [0] * 9 + [1], 2, False),
    ],
)
def test_near_chance(accuracy: float, labels: list[int], classes: int, warned: bool) -> None:
    source = Source(cast(Any, None), (0.5,), (0.25,))
    text = near_chance(accuracy, _data(labels, classes), source)
    assert (text is not None) == warned
    if text:
        for cause in ("order of the classes", "0, 1", "normalisation than mean [0.5] and std [0.25]", "not loaded"):
            assert cause in text
