"""Nothing that is loaded can run code, and no name leads out of the output folder."""

import hashlib
import io
import json
import os
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from ray.train import Checkpoint

from pipelines.ancestors.reading import load_directory as read_directory
from pipelines.ancestors.reading import read_checkpoint
from pipelines.config.experiment import load
from pipelines.registry import query as registry
from pipelines.registry.publish import check_names
from pipelines.runtime.workspace import Workspace
from pipelines.stages.size_trial import _saved as saved_by_a_trial
from pipelines.stages.training import _saved
from tests.pipelines.support import ROOT
from tests.wave.models import spec_of, tiny
from wave import Family, TargetSpec, Templates, WaveError, condense, save_model
from wave.resampling import Resampling
from wave.storage import META, TENSORS

DEMO = ROOT / "pipelines/experiments/digits.toml"
WEIGHTS = "model.safetensors"


class Hostile:
    """Unpickling this makes the folder ``executed``."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """Where a pickle that ran leaves its trace; the pickles do run when they are let."""
    proof = tmp_path / "proof"
    pickle.loads(pickle.dumps(Hostile(proof)))
    assert proof.is_dir()
    yield tmp_path / "executed"
    assert not (tmp_path / "executed").exists(), "what was loaded has run"


def pickles(mark: Path) -> dict[str, bytes]:
    """The ways in which torch and Python write an object: bare, torch's zip file, torch's older file."""
    files = {"bare": pickle.dumps(Hostile(mark))}
    for name, zipped in (("zip", True), ("legacy", False)):
        buffer = io.BytesIO()
        torch.save({"state_dict": Hostile(mark)}, buffer, _use_new_zipfile_serialization=zipped)
        files[name] = buffer.getvalue()
    return files


KINDS = ("bare", "zip", "legacy")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.bin", "w.ckpt", "w.safetensors", "w"])
def test_a_checkpoint_as_ancestor(mark: Path, tmp_path: Path, kind: str, name: str) -> None:
    (tmp_path / name).write_bytes(pickles(mark)[kind])
    with pytest.raises(WaveError, match=re.escape(str(tmp_path / name))):
        read_checkpoint(tmp_path / name, "vit_tiny_patch16_224", {"num_heads": 2})


@pytest.mark.parametrize("kind", KINDS)
def test_a_timm_directory(mark: Path, tmp_path: Path, kind: str) -> None:
    save_model(tiny(), tmp_path / "m", (0.5,) * 3, (0.5,) * 3)
    evil = pickles(mark)[kind]
    (tmp_path / "m/pytorch_model.bin").write_bytes(evil)
    read_directory(tmp_path / "m")  # what nothing names is not read
    config = tmp_path / "m/config.json"
    good = json.loads(config.read_text())
    for arguments in (
        {"checkpoint_path": str(tmp_path / "m/pytorch_model.bin")},
        {"pretrained": True, "pretrained_cfg": {"file": str(tmp_path / "m/pytorch_model.bin")}},
    ):
        config.write_text(json.dumps(good | {"model_args": {**good["model_args"], **arguments}}))
        with pytest.raises(WaveError, match="says how timm makes a model"):
            read_directory(tmp_path / "m")
    config.write_text(json.dumps(good))
    (tmp_path / "m" / WEIGHTS).write_bytes(evil)
    with pytest.raises(WaveError, match=WEIGHTS):
        read_directory(tmp_path / "m")


def test_a_registered_model_as_ancestor(mark: Path, tmp_path: Path) -> None:
    """A folder that somebody else registered: pickles where MLflow's own formats have them and in place of weights."""
    save_model(tiny(), tmp_path / "m", (0.5,) * 3, (0.5,) * 3)
    for name in ("python_model.pkl", "data/model.pth", "model.pkl", WEIGHTS):
        (tmp_path / "m" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "m" / name).write_bytes(pickles(mark)["bare"])
    flavours = (
        "flavors:\n  python_function:\n    loader_module: mlflow.pyfunc.model\n    python_model: python_model.pkl\n"
    )
    (tmp_path / "m/MLmodel").write_text(flavours)
    before = mlflow.get_tracking_uri()
    store = registry.open_store("", "doors", tmp_path)
    run = registry.batch_run(store, "doors", "doors", {}, {})
    registry.publish(store, tmp_path / "m", "doors", "evil", run, {}, "", {})
    pulled = registry.pull(store, "doors", "evil", tmp_path / "pulled")
    mlflow.set_tracking_uri(before)
    mlflow.set_registry_uri("")
    assert (pulled / "python_model.pkl").is_file()
    with pytest.raises(WaveError, match=WEIGHTS):
        read_directory(pulled)


@pytest.mark.parametrize("kind", KINDS)
def test_a_templates_artifact(mark: Path, tmp_path: Path, kind: str) -> None:
    """Also under right checksums, and where the JSON names a file for timm to load."""
    ancestor = tiny()
    auxiliary = condense(ancestor, spec_of(ancestor, count=4))
    Templates.of(auxiliary, Family.of(ancestor), Resampling(), {}).save(tmp_path / "t")
    (tmp_path / "evil.pth").write_bytes(pickles(mark)[kind])
    good = (tmp_path / "t" / TENSORS).read_bytes()
    for tensors, extra in ((pickles(mark)[kind], {}), (good, {"checkpoint_path": str(tmp_path / "evil.pth")})):
        (tmp_path / "t" / TENSORS).write_bytes(tensors)
        meta = json.loads((tmp_path / "t" / META).read_text())
        meta["family"]["model_args"].update(extra)
        meta["sha256"] = hashlib.sha256(tensors).hexdigest()
        rest = {k: v for k, v in meta.items() if k != "checksum"}
        meta["checksum"] = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
        (tmp_path / "t" / META).write_text(json.dumps(meta))
        with pytest.raises(WaveError, match="templates"):
            Templates.load(tmp_path / "t")


@pytest.mark.parametrize("kind", KINDS)
def test_a_trials_checkpoint(mark: Path, tmp_path: Path, kind: str) -> None:
    """The size is trained from its beginning, as if the file were not there."""
    state = tmp_path / "d016-l02.pt"
    state.write_bytes(pickles(mark)[kind])
    assert saved_by_a_trial(state, "cpu") == {}
    torch.save({"key": "k"}, state)
    assert saved_by_a_trial(state, "cpu") == {"key": "k"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_of_stage_1(mark: Path, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "templates-key/checkpoint_1"
    folder.mkdir(parents=True)
    (folder / "state.pt").write_bytes(pickles(mark)[kind])
    with pytest.raises(WaveError, match=rf"checkpoint_1/state.pt: .*; remove {re.escape(str(folder.parent))}"):
        _saved(Checkpoint.from_directory(str(folder)), "cpu")
    torch.save({"step": 3, "model": {}}, folder / "state.pt")
    assert _saved(Checkpoint.from_directory(str(folder)), "cpu") == {"step": 3, "model": {}}


EVIL = {
    "above": "../out",
    "deep": "a/../../out",
    "absolute": "/tmp/out",
    "home": "~/out",
    "NUL": "a\0b",
    "long": "x" * 5000,
    "here": ".",
    "parent": "..",
    "slash": "a/b",
    "backslash": "..\\out",
    "line": "a\nb",
    "blank": " ",
}


@pytest.mark.parametrize("evil", EVIL.values(), ids=list(EVIL))
@pytest.mark.parametrize("key", ["name", "mlflow.registered_model"])
def test_a_name_cannot_leave_the_output_folder(key: str, evil: str) -> None:
    """Refused when the file is read or, for what only MLflow forbids, before anything is started."""

    def begin() -> None:
        check_names(load(DEMO, [f"{key}={json.dumps(evil)}"]).mlflow.registered_model)

    with pytest.raises(WaveError) as refused:
        begin()
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 1000


@pytest.mark.parametrize("target", [TargetSpec(32, 2), TargetSpec(16384, 1024, 1000, 8192, 8192)])
def test_a_size_names_one_folder_of_models(tmp_path: Path, target: TargetSpec) -> None:
    workspace = Workspace(tmp_path)
    assert workspace.model(target.name).parent == tmp_path / "models"
    assert workspace.checkpoint(target.name).parent == tmp_path / "checkpoints"
    assert re.fullmatch(r"[a-z0-9-]{1,60}", target.name)
