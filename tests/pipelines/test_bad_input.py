"""Wrong input through the real command line: exit code 2, one line that says what to change, nothing left behind."""

import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch
from mlflow import MlflowClient

from pipelines.data.convert.convert import convert
from pipelines.registry.store import open_store
from tests.pipelines.bad_cases import CASES, DEAD, SIZE, TRUE_PROCESS, Case
from tests.pipelines.bad_files import HOLDERS, RUNNING
from wave.export import save_model

ROOT = Path(__file__).resolve().parents[2]
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
NEW = re.compile(r"out|out/\.lock")
"""What a refused command may leave: the folder that it was told to write to, and the lock in it."""


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
    """Seconds since 1970, as files' times are."""


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
        self.processes = {name: self.process(name) for name in TRUE_PROCESS}

    def process(self, name: str) -> "subprocess.Popen[str]":
        """``python -m pipelines`` in a process of its own, for a case that it shares with the fork server."""
        case = next(case for case in CASES if case.name == name)
        here = self.prepare(replace(case, name=f"{name} again"))
        return subprocess.Popen(
            [sys.executable, "-m", "pipelines", *self.argv(case)],
            cwd=here, env=self.commands.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

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
        before, began = tree(here), time.time()
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
    model = timm.create_model("vit_tiny_patch16_224", **cast(dict[str, Any], SIZE))
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
        assert bench.commands.process.wait(300) == 0
    web.shutdown()
    for holder in HOLDERS:
        holder.close()
    for process in RUNNING:
        process.communicate()


def one_line(err: str, says: Sequence[str]) -> None:
    # Each case has a copy of one registry; what is said of its new place is no mistake.
    lines = [line for line in err.splitlines() if not line.startswith("registry: moved from ")]
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
    assert Path(f"{started.here}.log.err").stat().st_mtime - started.began < 120
    after = tree(started.here)
    left = {name for name in after if name not in started.before and not NEW.fullmatch(name)}
    assert not left, left
    changed = {n for n, what in started.before.items() if after.get(n) != what and n != "out/.lock"} - {"mlflow.db"}
    assert not changed, changed
    if case.name != "database busy":
        assert registry(started.here) == registry(bench.world) or registry(started.here) == []


@pytest.mark.parametrize("name", TRUE_PROCESS, ids=lambda name: name.replace(" ", "-"))
def test_a_process_of_its_own_says_the_same(bench: Bench, name: str) -> None:
    _, err = bench.processes[name].communicate(timeout=600)
    assert bench.processes[name].returncode == 2, err
    one_line(err, next(case for case in CASES if case.name == name).says)


def test_the_same_file_unspoilt_is_good(bench: Bench) -> None:
    """The cases above fail by what they change, not by what they share."""
    status, out, err, _ = bench.finish(Case("good", (), argv=("plan", "x.toml")))
    assert (status, err) == (0, ""), err
    assert "d048-l03" in out
