"""What can be wrong on disk: each function makes or changes files in the case's folder ``here``, from ``world``'s."""

import json
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from pipelines.ancestors.record import ancestor_key
from pipelines.ancestors.source import foresee
from pipelines.config.experiment import load
from pipelines.data.dataset import open_dataset
from pipelines.data.shard import Metadata
from pipelines.runtime.workspace import Workspace
from pipelines.stages import distil
from wave.condensation import condense
from wave.family import Family
from wave.resampling import Resampling
from wave.storage import Templates

Spoil = Callable[[Path, Path], object]
TRAIN_SHARD = "train-00000-of-00001.parquet"


def data(change: Callable[[Path], object]) -> Spoil:
    """A copy of the data set as ``bad``, changed."""

    def spoil(here: Path, world: Path) -> None:
        shutil.copytree(world / "data", here / "bad")
        change(here / "bad")

    return spoil


def model(change: Callable[[Path], object]) -> Spoil:
    """A copy of the ancestor's directory as ``model``, changed."""

    def spoil(here: Path, world: Path) -> None:
        shutil.copytree(world / "ancestor", here / "model")
        change(here / "model")

    return spoil


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Spoil:
    """The ancestor's weights as ``w.safetensors``, changed."""

    def spoil(here: Path, world: Path) -> None:
        state = load_file(world / "ancestor/model.safetensors")
        change(state)
        save_file(state, here / "w.safetensors")

    return spoil


def templates(change: Callable[[Path], object]) -> Spoil:
    """An output folder with ancestor and templates as a run leaves them, the templates changed."""

    def spoil(here: Path, world: Path) -> None:
        experiment = load(here / "x.toml")
        dataset, workspace = open_dataset(experiment.data.path), Workspace.open(str(here / "out"))
        source = foresee(experiment, dataset, workspace)
        shutil.copytree(world / "ancestor", workspace.ancestor)
        record = {"accuracy": 0.5, "parameters": 1000}
        origin = workspace.finish(workspace.ancestor, ancestor_key(experiment, dataset), record)
        family = Family.of(source.model)
        auxiliary = condense(source.model, experiment.templates.spec(family.head_dim, family.mlp_ratio))
        Templates.of(auxiliary, family, Resampling(), {}).save(workspace.templates)
        workspace.finish(workspace.templates, distil.key(experiment, origin), record)
        change(workspace.templates)

    return spoil


def cut(name: str, keep: int = -100) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:keep])


def edited(name: str, **changes: Any) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | changes))


def file(name: str, content: str | bytes = "in the way") -> Spoil:
    def spoil(here: Path, world: Path) -> None:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def relabelled(folder: Path, label: int) -> None:
    table = pq.read_table(folder / TRAIN_SHARD)
    pq.write_table(table.set_column(1, "label", pa.array(np.full(len(table), label))), folder / TRAIN_SHARD)


def encoded(here: Path, world: Path) -> None:
    """A data set of PNG files, the third of which is cut short."""
    stream = BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(stream, "PNG")
    good, meta = stream.getvalue(), Metadata("encoded", tuple("0123456789"), (0.5,), (0.5,), (1, 8, 8))
    (here / "bad").mkdir()
    for split in ("train", "test"):
        table = pa.table([pa.array([good, good, good[:40]]), pa.array([0, 1, 2])], schema=meta.schema())
        pq.write_table(table, here / "bad" / f"{split}-00000-of-00001.parquet")


def pictures(here: Path, world: Path) -> None:
    """An ImageFolder whose only validation image is text."""
    for split, name in (("train", "a.png"), ("val", "b.png")):
        (here / "images" / split / "cat").mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(here / "images" / split / "cat" / name)
    (here / "images/val/cat/b.png").write_text("not a picture")


class Hostile:
    """Unpickled, it makes the file ``executed``."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch executed",))


def hostile(name: str, zipped: bool) -> Spoil:
    def spoil(here: Path, world: Path) -> None:
        if zipped:
            torch.save({"state_dict": Hostile()}, here / name)
        else:
            (here / name).write_bytes(pickle.dumps(Hostile()))

    return spoil


def version(folder: Path) -> None:
    with sqlite3.connect(folder / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")


HOLDERS: list[sqlite3.Connection] = []


def locked(here: Path, world: Path) -> None:
    HOLDERS.append(sqlite3.connect(here / "mlflow.db", check_same_thread=False))
    HOLDERS[-1].execute("BEGIN EXCLUSIVE")


def running(here: Path, world: Path) -> None:
    """Another run has the output folder: this process holds its lock while the test lives."""
    (here / "out").mkdir()
    code = "import fcntl, sys; f = open('out/.lock', 'w'); fcntl.flock(f, 2); print(4711, file=f, flush=True)"
    code += "; print(flush=True); sys.stdin.read()"
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=here, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    RUNNING.append(holder)


RUNNING: list[subprocess.Popen[bytes]] = []
