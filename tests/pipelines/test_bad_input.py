"""Wrong input through the real command line: exit code 2, one line that says what to change, nothing left behind."""

import json
import os
import pickle
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from mlflow import MlflowClient
from PIL import Image
from safetensors.torch import load_file, save_file

from pipelines import ancestor, distil
from pipelines.config import load
from pipelines.convert import convert
from pipelines.data import open_dataset
from pipelines.shards import Metadata
from pipelines.store import open_store
from pipelines.workspace import Workspace
from wave.condense import condense
from wave.resample import Resampling
from wave.storage import Templates, save_model
from wave.vit import Family

ROOT = Path(__file__).resolve().parents[2]
SIZE = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 4, "img_size": 8, "in_chans": 1, "num_classes": 10}
FILE = """
name = "digits"
output = "out"
[data]
path = "WORLD/data"
[ancestor]
source = "local-dir:WORLD/ancestor"
[templates]
count = 8
[distil]
sizes = {embed_dim = [32, 48], depth = [2]}
[distil.recipe]
steps = 4
batch_size = 32
[initialise.recipe]
steps = 4
batch_size = 32
[targets]
grid = {embed_dim = [32, 48], depth = [2, 3]}
[cluster]
num_cpus = 2
"""
TRAIN = (
    *("ancestor.source=train", "ancestor.architecture=vit_tiny_patch16_224", "ancestor.recipe={steps=4,batch_size=32}"),
    *(f"ancestor.model_args.{key}={SIZE[key]}" for key in ("embed_dim", "depth", "num_heads", "patch_size")),
)
CHECKPOINT = (
    *("ancestor.architecture=vit_tiny_patch16_224", "ancestor.mean=[0.5]", "ancestor.std=[0.5]"),
    *(f"ancestor.model_args.{key}={SIZE[key]}" for key in ("embed_dim", "depth", "num_heads", "patch_size")),
)
DEAD = "127.0.0.1:9"
NEW = re.compile(r"out|out/\.lock")
"""What a refused command may leave: the folder that it was told to write to, and the lock in it."""


@dataclass(frozen=True)
class Case:
    """A command that has to fail. ``says`` are regular expressions that its one line holds; CWD and WORLD are put in."""

    name: str
    says: tuple[str, ...]
    sets: tuple[str, ...] = ()
    argv: tuple[str, ...] = ("run", "x.toml")
    spoil: Callable[[Path, Path], object] = lambda here, world: None
    env: dict[str, str] = field(default_factory=dict)
    waits: bool = False
    """Waits for a time limit: started first, beside the others."""


# --- what can be wrong on disk ---------------------------------------------------------------------------------------


def data(change: Callable[[Path], object]) -> Callable[[Path, Path], object]:
    """A copy of the data set as ``bad``, changed."""

    def spoil(here: Path, world: Path) -> None:
        shutil.copytree(world / "data", here / "bad")
        change(here / "bad")

    return spoil


def model(change: Callable[[Path], object]) -> Callable[[Path, Path], object]:
    """A copy of the ancestor's directory as ``model``, changed."""

    def spoil(here: Path, world: Path) -> None:
        shutil.copytree(world / "ancestor", here / "model")
        change(here / "model")

    return spoil


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path, Path], object]:
    """The ancestor's weights as ``w.safetensors``, changed."""

    def spoil(here: Path, world: Path) -> None:
        state = load_file(world / "ancestor/model.safetensors")
        change(state)
        save_file(state, here / "w.safetensors")

    return spoil


def templates(change: Callable[[Path], object]) -> Callable[[Path, Path], object]:
    """An output folder with ancestor and templates as a run leaves them, the templates changed."""

    def spoil(here: Path, world: Path) -> None:
        experiment = load(here / "x.toml")
        dataset, workspace = open_dataset(experiment.data.path), Workspace.open(str(here / "out"))
        source = ancestor.foresee(experiment, dataset, workspace)
        shutil.copytree(world / "ancestor", workspace.ancestor)
        record = {"accuracy": 0.5, "parameters": 1000}
        origin = workspace.finish(workspace.ancestor, ancestor.key(experiment, dataset), record)
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


def file(name: str, content: str | bytes = "in the way") -> Callable[[Path, Path], object]:
    def spoil(here: Path, world: Path) -> None:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def relabelled(folder: Path, label: int) -> None:
    table = pq.read_table(folder / TRAIN_SHARD)
    pq.write_table(table.set_column(1, "label", pa.array(np.full(len(table), label))), folder / TRAIN_SHARD)


TRAIN_SHARD = "train-00000-of-00001.parquet"


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


def hostile(name: str, zipped: bool) -> Callable[[Path, Path], object]:
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
    code = "import fcntl,sys,time; f=open('out/.lock','w'); fcntl.flock(f, 2); f.write('4711'); f.flush(); print(1, flush=True); sys.stdin.read()"
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=here, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    RUNNING.append(holder)


RUNNING: list[subprocess.Popen[bytes]] = []


def s(*texts: str) -> tuple[str, ...]:
    return texts


# --- the cases -------------------------------------------------------------------------------------------------------

RUN = ("run", "x.toml")
CASES = [
    # the command line
    Case("no such command", s("'rnu'", "--help"), argv=("rnu",)),
    Case("no file named", s("FILE", "--help"), argv=("run",)),
    Case("no such option", s("--fast", "--help"), argv=("run", "x.toml", "--fast")),
    Case("no such file", s(r"y\.toml: no such file; nearest: x\.toml"), argv=("run", "y.toml")),
    Case("file name with a line break", s(r"a b\.toml: no such file"), argv=("run", "a\nb.toml")),
    Case("not TOML", s(r"x\.toml: not valid TOML", "line 1"), spoil=file("x.toml", "name = \n")),
    Case("not text", s(r"x\.toml: line 1 is not UTF-8"), spoil=file("x.toml", b"\xff\xfe")),
    Case("override without a value", s("--set seed", "section.key=value"), ("seed",)),
    # the experiment file
    Case("unknown key", s("dtaa is not a key; nearest: data"), ("dtaa.path=x",)),
    Case("misspelt key", s("distil.recipe.stesp is not a key; nearest: steps"), ("distil.recipe.stesp=4",)),
    Case("wrong type", s("distil.recipe.lr='fast' should be a valid number"), ("distil.recipe.lr=fast",)),
    Case("a section that is no table", s("templates=3 should be a table"), ("templates=3",)),
    Case("missing section", s(r"x\.toml: .* is missing"), spoil=file("x.toml", 'name = "a"')),
    Case("unknown choice", s("nearest: nearest"), ("initialise.depth=nearst",)),
    Case("setting without effect", s("ancestor.architecture has no effect"), ("ancestor.architecture=vit_tiny_patch16_224",)),
    Case("statistics that nothing reads", s("ancestor.mean has no effect"), (*TRAIN, "ancestor.mean=[0.5]", "ancestor.std=[1]")),
    Case("empty target list", s("targets names no size"), ("targets.grid=", "targets.sizes=[]")),
    Case("empty grid", s(r"targets.grid.depth=\[\] .*at least 1"), ("targets.grid.depth=[]",)),
    Case(
        "duplicate sizes", s("targets.sizes names d032-l02 more than once"),
        ("targets.grid=", "targets.sizes=[{embed_dim=32,depth=2},{embed_dim=32,depth=2}]"),
    ),
    Case(
        "one size under two names", s("d032-l02-c10 is the same size as d032-l02"),
        ("targets.grid=", "targets.sizes=[{embed_dim=32,depth=2},{embed_dim=32,depth=2,num_classes=10}]"),
    ),
    Case("depth of zero", s(r"depth\[0\]=0 should be greater than or equal to 1"), ("targets.grid.depth=[0]",)),
    Case("no multiple of the workers", s("batch_size=32 is not a multiple of 3", "30 and 33"), ("distil.workers=3",)),
    Case("warm-up longer than training", s("distil.recipe: warmup_steps=9", "all 4 steps"), ("distil.recipe.warmup_steps=9",)),
    Case("ancestor's batches", s("ancestor.recipe: .*batch_size=33 .*2 workers"), (*TRAIN, "distil.workers=2", "ancestor.recipe.batch_size=33")),
    Case("stage 2's warm-up", s("initialise.recipe: warmup_steps=4"), ("initialise.recipe.warmup_steps=4",)),
    # names that leave the output folder, and output that cannot be written
    Case("name that leaves the folder", s("1 to 64 letters"), ("name=../x",)),
    Case("registered name that leaves the folder", s(r"registered_model='\.\./x'"), ("mlflow.registered_model=../x",)),
    Case("registered name of dots", s("registered model name", "A-Z"), ("mlflow.registered_model=..",)),
    Case("file in the output's path", s("output='f/out' cannot be written", "Not a directory", "another folder"), ("output=f/out",), spoil=file("f")),
    Case("output is a file", s("output='f' cannot be written"), ("output=f",), spoil=file("f")),
    Case("output where nobody can write", s("output='/proc/wave' cannot be written"), ("output=/proc/wave",)),
    Case("home of nobody", s("output='~nobody-here/out'", "write the path out"), ("output=~nobody-here/out",)),
    Case("a file where models go", s("out/models is a file", "remove it"), spoil=file("out/models")),
    Case("another run", s("process 4711", "out; wait for it"), spoil=running),
    # data
    Case("no data", s("nowhere: no such folder", "python -m pipelines data"), ("data.path=nowhere",)),
    Case("data folder without shards", s(r"bad: has no train-\*\.parquet"), ("data.path=bad",), spoil=file("bad/readme.txt")),
    Case("missing split", s(r"bad: has no test-\*"), ("data.path=bad",), spoil=data(lambda d: (d / "test-00000-of-00001.parquet").unlink())),
    Case("corrupt Parquet", s(f"bad/{TRAIN_SHARD}: not a readable Parquet file"), ("data.path=bad",), spoil=data(cut(TRAIN_SHARD))),
    Case("label too large", s(f"bad/{TRAIN_SHARD}: row 0 has label 10; 10 classes allow 0 to 9"), ("data.path=bad",), spoil=data(lambda d: relabelled(d, 10))),
    Case("negative label", s("row 0 has label -1"), ("data.path=bad",), spoil=data(lambda d: relabelled(d, -1))),
    Case("image that does not decode", s("bad/train-.*: row 2: the image does not decode"), ("data.path=bad",), spoil=encoded),
    Case("augmentation of raw images", s("data.reprob has no effect on .*raw"), ("data.reprob=0.5", "initialise.teacher_logits=false")),
    Case("converter's source", s("images/val/cat/b.png: the image does not decode"), argv=("data", "imagefolder", "images", "made"), spoil=pictures),
    Case("converter without a source", s("nowhere: no such folder"), argv=("data", "imagefolder", "nowhere", "made")),
    Case("converter over other files", s("full: exists already"), argv=("data", "digits", "full"), spoil=file("full/x")),
    Case("converter into a file", s("f/made: cannot be written"), argv=("data", "digits", "f/made"), spoil=file("f")),
    Case("unknown converter", s("'cifar'", "digits"), argv=("data", "cifar", "made")),
    Case("image size of no effect", s("image_size=4 has no effect"), argv=("data", "digits", "made", "--image-size", "4")),
    # ancestor
    Case("unknown architecture", s("ancestor: timm has no architecture 'vit_tinny'"), (*TRAIN, "ancestor.architecture=vit_tinny")),
    Case("windowed model", s("SwinTransformer is not supported", "vit_base"), (*TRAIN, "ancestor.architecture=swin_tiny_patch4_window7_224", "ancestor.model_args=")),
    Case("rotary model", s("Eva is not supported"), (*TRAIN, "ancestor.architecture=eva02_tiny_patch14_224", "ancestor.model_args=")),
    Case("unsupported model of the hub", s("timm:resnet18: ResNet is not supported"), ("ancestor.source=timm:resnet18",)),
    Case("patches larger than the image", s("ancestor: img_size=8 is not a multiple of patch_size=16"), (*TRAIN, "ancestor.model_args.patch_size=16")),
    Case("heads that do not divide the width", s("timm cannot make vit_tiny.*32"), (*TRAIN, "ancestor.model_args.num_heads=5")),
    Case("argument that timm does not know", s("embed_dmi"), (*TRAIN, "ancestor.model_args.embed_dmi=3")),
    Case("ancestor beyond any memory", s("takes .* GB, this machine has"), (*TRAIN, "ancestor.model_args.embed_dim=16384", "ancestor.model_args.depth=40")),
    Case("ancestor of absurd width", s("embed_dim=10000000 should be from 1 to 16384"), (*TRAIN, "ancestor.model_args.embed_dim=10000000")),
    Case("other classes", s("the ancestor has 7 classes, .*data has 10"), (*TRAIN, "ancestor.model_args.num_classes=7")),
    Case("other images", s("the ancestor reads 3x16x16 images, .*1x8x8"), (*TRAIN, "ancestor.model_args.in_chans=3", "ancestor.model_args.img_size=16")),
    Case("no checkpoint", s(r"none\.safetensors: no such file"), (*CHECKPOINT, "ancestor.source=checkpoint:none.safetensors")),
    Case("checkpoint of other shapes", s(r"w\.safetensors: tensor blocks.0.mlp.fc1.bias has shape \(3,\), the model's is \(128,\)", "model_args"), (*CHECKPOINT, "ancestor.source=checkpoint:w.safetensors"), spoil=weights(lambda w: w.update({"blocks.0.mlp.fc1.bias": torch.zeros(3)}))),
    Case("checkpoint without a tensor", s("tensor norm.bias is missing"), (*CHECKPOINT, "ancestor.source=checkpoint:w.safetensors"), spoil=weights(lambda w: w.pop("norm.bias"))),
    Case("checkpoint of a deeper model", s("tensor blocks.1.attn.proj.bias has no place"), (*CHECKPOINT, "ancestor.source=checkpoint:w.safetensors", "ancestor.model_args.depth=1"), spoil=weights(lambda w: None)),
    Case("checkpoint with NaN", s("tensor norm.bias holds NaN"), (*CHECKPOINT, "ancestor.source=checkpoint:w.safetensors"), spoil=weights(lambda w: w["norm.bias"].fill_(float("nan")))),
    Case("checkpoint that is text", s(r"w\.safetensors: not a checkpoint"), (*CHECKPOINT, "ancestor.source=checkpoint:w.safetensors"), spoil=file("w.safetensors", "hello")),
    Case("hostile checkpoint", s(r"w\.pt: refused, it holds more than tensors", "safetensors"), (*CHECKPOINT, "ancestor.source=checkpoint:w.pt"), spoil=hostile("w.pt", True)),
    Case("hostile pickle", s(r"w\.pt: (refused|not a checkpoint)"), (*CHECKPOINT, "ancestor.source=checkpoint:w.pt"), spoil=hostile("w.pt", False)),
    Case("hostile pickle by another name", s(r"w\.safetensors: not a checkpoint"), (*CHECKPOINT, "ancestor.source=checkpoint:w.safetensors"), spoil=hostile("w.safetensors", False)),
    Case("directory without weights", s("model/model.safetensors: no such file"), ("ancestor.source=local-dir:model",), spoil=model(lambda m: (m / "model.safetensors").unlink())),
    Case("directory without configuration", s("nowhere/config.json: No such file", "timm directory"), ("ancestor.source=local-dir:nowhere",)),
    Case("configuration that is none", s("model/config.json: not a timm configuration"), ("ancestor.source=local-dir:model",), spoil=model(edited("config.json", model_args=7))),
    Case("configuration of another model", s("tensor .* has shape"), ("ancestor.source=local-dir:model",), spoil=model(edited("config.json", num_classes=3))),
    Case("registry without the ancestor", s("models:/none/1", "models list"), ("ancestor.source=models:/none/1",)),
    # templates and sizes
    Case("width no multiple of head_dim", s("targets: d040-l02: embed_dim=40", "32 and 48"), ("targets.grid.embed_dim=[40]",)),
    Case("width that blocks cannot build", s("targets: d048-l02: embed_dim=48 cannot be built", "32 and 64"), ("templates.block=[32,32]", "distil.sizes=")),
    Case("sampled size that blocks cannot build", s("distil.sizes: d048-l02: embed_dim=48", "32 and 64"), ("templates.block=[32,32]", "targets.grid.embed_dim=[64]")),
    Case("ancestor that blocks cannot build", s("templates: embed_dim=32 cannot be built"), ("templates.block=[5,5]",)),
    Case("auxiliary that blocks cannot build", s("templates.auxiliary: embed_dim=40"), ("templates.auxiliary={embed_dim=40,depth=2}",)),
    Case("more templates than the ancestor's blocks", s("templates: count of proj is 9", "use at most 8"), ("templates.count=9",)),
    Case("more templates than a block has entries", s("templates: qkv: 300 templates of 16x16", "256"), ("templates.count=300",)),
    Case("target's image no multiple of its patch", s("img_size", "10", "patch_size=4"), ("targets.grid=", "targets.sizes=[{embed_dim=32,depth=2,img_size=10,patch_size=4}]")),
    Case("target's image no multiple of the ancestor's patch", s("targets: d032-l02-i10: img_size=10", "patch_size=4"), ("targets.grid=", "targets.sizes=[{embed_dim=32,depth=2,img_size=10}]")),
    Case("target of no class", s("num_classes=0 should be greater"), ("targets.grid=", "targets.sizes=[{embed_dim=32,depth=2,num_classes=0}]")),
    Case("target beyond any memory", s("targets: d16384-l1024 takes .* GB"), ("targets.grid={embed_dim=[16384],depth=[1024]}",)),
    Case("templates of another version", s("out/templates/templates.json: version 99", "remove .*out/templates"), spoil=templates(edited("templates.json", version=99))),
    Case("templates cut short", s("templates.safetensors: wrong checksum"), spoil=templates(cut("templates.safetensors"))),
    Case("templates' JSON cut short", s("templates.json: not valid JSON"), spoil=templates(cut("templates.json"))),
    Case("templates changed by hand", s("templates.json: wrong checksum"), spoil=templates(edited("templates.json", info={"metrics": 1}))),
    # MLflow, Ray, hub: what is elsewhere
    Case("no MLflow server", s(f"no MLflow server answers at http://{DEAD}"), (f"mlflow.tracking_uri=http://{DEAD}",)),
    Case("port of another server", s("no MLflow server at work", "404"), ("mlflow.tracking_uri=http://WEB",)),
    Case("port that never answers", s("no MLflow server answers at .*Timeout"), ("mlflow.tracking_uri=http://SILENT",), waits=True),
    Case("database busy", s(r"mlflow\.db cannot be used \(database is locked\); end the program"), spoil=locked, waits=True),
    Case("database that is none", s(r"mlflow\.db cannot be used \(file is not a database\)"), spoil=file("mlflow.db", "no database " * 99)),
    Case("database of another MLflow", s("another MLflow version than this"), spoil=lambda here, world: version(here)),
    Case("file store", s("mlflow.tracking_uri='./mlruns' is a folder", "sqlite:///"), ("mlflow.tracking_uri=./mlruns",)),
    Case("database where nobody can write", s("/proc/wave/mlflow.db cannot be used"), ("mlflow.tracking_uri=sqlite:////proc/wave/mlflow.db",)),
    Case("no Ray at the address", s(f"cluster.address: no Ray session on {DEAD}: Connection refused"), (f"cluster.address={DEAD}", "cluster.num_cpus=")),
    Case("no Ray client server", s(f"no Ray session on ray://{DEAD}: Connection refused"), (f"cluster.address=ray://{DEAD}", "cluster.num_cpus=")),
    Case("address that is none", s("cluster.address: no Ray session on somewhere"), ("cluster.address=somewhere", "cluster.num_cpus=")),
    Case("no Ray at RAY_ADDRESS", s(f"no Ray session on {DEAD}"), env={"RAY_ADDRESS": DEAD}),
    Case("more workers than CPUs", s("distil.workers: 4 CPU needed, this machine has 2"), ("distil.workers=4",)),
    Case("trial that no machine can run", s("initialise.resources for d032-l02: 99 CPU needed"), ("initialise.resources=[{cpus=99}]",)),
    Case("GPU that is not there", s("distil.workers: 64 GPU needed"), ("distil.use_gpu=true", "distil.resources_per_worker={GPU=64}")),
    Case("weights that are nowhere", s("timm:deit_tiny_patch16_224: the model hub .* does not answer", "local-dir"), ("ancestor.source=timm:deit_tiny_patch16_224",)),
    Case("no such model in timm", s("timm has no architecture 'vit_tinny'"), ("ancestor.source=timm:vit_tinny",)),
    # the registry's commands
    Case("no alias named", s("'digits' does not name a registered model; use NAME@ALIAS"), argv=("models", "show", "digits")),
    Case("show an unknown model", s("no model 'none'; nearest of 1 is 'digits'"), argv=("models", "show", "none@d032-l02")),
    Case("show an unknown alias", s("'digits' has no alias 'd999-l99'"), argv=("models", "show", "digits@d999-l99")),
    Case("pull an unknown model", s("no model 'none'"), argv=("models", "pull", "none@d032-l02", "pulled")),
    Case("pull an unknown alias", s("no alias 'd999-l99'"), argv=("models", "pull", "digits@d999-l99", "pulled")),
    Case("pull a name that leaves the folder", s("no model '../../x'"), argv=("models", "pull", "../../x@a", "pulled")),
    Case("list an unknown model", s("no model 'none'"), argv=("models", "list", "--registered-model", "none")),
    Case("list without a registry", s("no MLflow database", "run an experiment"), argv=("models", "list"), spoil=lambda here, world: (here / "mlflow.db").unlink()),
    Case("plan an impossible size", s("targets: d040-l02: embed_dim=40"), ("targets.grid.embed_dim=[40]",), argv=("plan", "x.toml")),
    Case("evaluate an unknown key", s("evaluate.sise is not a key"), ("evaluate.sise=1",), argv=("evaluate", "x.toml")),
    Case("report on nothing", s("results.json: No such file", "finished run"), argv=("report", "nowhere")),
]  # fmt: skip


# --- running them ----------------------------------------------------------------------------------------------------


class Commands:
    """The command line, started up once (tests/pipelines/fork_server.py)."""

    def __init__(self, world: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_ENDPOINT": f"http://{DEAD}"}
        for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "HF_HUB_OFFLINE"):
            environment.pop(name, None)
        self.environment = environment | {"HF_HOME": str(world / "hub")}
        script = [sys.executable, str(ROOT / "tests/pipelines/fork_server.py")]
        self.process = subprocess.Popen(
            script, cwd=ROOT, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, **request: Any) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@dataclass
class Started:
    """A command under way in its own folder."""

    here: Path
    pid: int
    before: dict[str, tuple[int, int]]
    began: float


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every path below a folder with its size and time of change (folders: none)."""
    found = {p.relative_to(folder).as_posix(): (p.lstat(), p.is_dir()) for p in folder.rglob("*")}
    return {name: (0, 0) if is_dir else (stat.st_size, stat.st_mtime_ns) for name, (stat, is_dir) in found.items()}


def registry(folder: Path) -> list[tuple[Any, ...]]:
    """What a database holds of models and runs; nothing where none is read."""
    if not (folder / "mlflow.db").is_file() or b"SQLite" not in (folder / "mlflow.db").read_bytes()[:16]:
        return []
    tables = ("registered_models", "model_versions", "registered_model_aliases", "runs", "logged_models")
    with sqlite3.connect(folder / "mlflow.db") as database:
        return [database.execute(f"SELECT count(*) FROM {table}").fetchone() for table in tables]


class Bench:
    """Makes a case's folder, starts its command, and checks how it ended."""

    def __init__(self, world: Path, addresses: dict[str, str]) -> None:
        self.world, self.commands, self.addresses = world, Commands(world), addresses
        self.started = {case.name: self.start(case) for case in CASES if case.waits}

    def argv(self, case: Case) -> list[str]:
        texts = [text for override in case.sets for text in ("--set", override)]
        replaced = [*case.argv[:2], *texts, *case.argv[2:]]
        for name, value in {"WORLD": str(self.world), **self.addresses}.items():
            replaced = [text.replace(name, value) for text in replaced]
        return replaced

    def prepare(self, case: Case) -> Path:
        here = self.world / re.sub(r"\W+", "-", case.name)
        here.mkdir()
        (here / "x.toml").write_text(FILE.replace("WORLD", str(self.world)))
        shutil.copy(self.world / "mlflow.db", here / "mlflow.db")
        case.spoil(here, self.world)
        return here

    def start(self, case: Case) -> Started:
        here = self.prepare(case)
        before, began = tree(here), time.monotonic()
        request = {"argv": self.argv(case), "cwd": str(here), "env": case.env, "out": str(here) + ".log"}
        return Started(here, self.commands.ask(start=request), before, began)

    def finish(self, case: Case) -> tuple[int, str, str, Started]:
        started = self.started.get(case.name) or self.start(case)
        status = self.commands.ask(wait=started.pid)
        out, err = (Path(f"{started.here}.log.{ending}").read_text() for ending in ("out", "err"))
        return status, out, err, started


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good data, a good ancestor, and a database with one registered model without versions."""
    world = tmp_path_factory.mktemp("bad")
    dataset = convert("digits", "", world / "data")
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", **SIZE)
    save_model(model, world / "ancestor", dataset.mean, dataset.std, dataset.classes)
    store = open_store(f"sqlite:///{world}/mlflow.db", "digits", world)
    MlflowClient(store.tracking_uri, store.tracking_uri).create_registered_model("digits")
    return world


class NotMlflow(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def bench(world: Path) -> Iterator[Bench]:
    web = HTTPServer(("127.0.0.1", 0), NotMlflow)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        addresses = {"WEB": f"127.0.0.1:{web.server_port}", "SILENT": f"127.0.0.1:{silent.getsockname()[1]}"}
        bench = Bench(world, addresses)
        yield bench
        assert bench.commands.process.stdin is not None
        bench.commands.process.stdin.close()
        assert bench.commands.process.wait(60) == 0
    web.shutdown()
    for holder in HOLDERS:
        holder.close()
    for process in RUNNING:
        process.communicate()


def one_line(err: str, says: Sequence[str]) -> None:
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    assert len(lines[0]) < 700
    for pattern in says:
        assert re.search(pattern, lines[0]), (pattern, lines[0])


def test_at_least_45_cases_of_different_names() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 45


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_one_clear_line(bench: Bench, case: Case) -> None:
    status, out, err, started = bench.finish(case)
    assert "Traceback" not in out + err, err
    one_line(err, case.says)
    assert status == 2, (out, err)
    assert time.monotonic() - started.began < 60
    after = tree(started.here)
    left = {name for name in after if name not in started.before and not NEW.fullmatch(name)}
    assert not left, left
    changed = {n for n, what in started.before.items() if after.get(n) != what and n != "out/.lock"} - {"mlflow.db"}
    assert not changed, changed
    if case.name != "database busy":
        assert registry(started.here) == registry(bench.world) or registry(started.here) == []


TRUE_PROCESS = ["misspelt key", "width no multiple of head_dim", "weights that are nowhere"]


@pytest.mark.parametrize("name", TRUE_PROCESS, ids=lambda name: name.replace(" ", "-"))
def test_a_process_of_its_own_says_the_same(bench: Bench, name: str) -> None:
    case = next(case for case in CASES if case.name == name)
    here = bench.prepare(Case(f"{name} again", case.says, spoil=case.spoil))
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", *bench.argv(case)],
        cwd=here, env=bench.commands.environment, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 2
    one_line(done.stderr, case.says)


def test_the_same_file_unspoilt_is_good(bench: Bench) -> None:
    """The cases above fail by what they change, not by what they share."""
    status, out, err, _ = bench.finish(Case("good", (), argv=("plan", "x.toml")))
    assert (status, err) == (0, ""), err
    assert "d048-l03" in out
