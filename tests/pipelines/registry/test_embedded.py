"""A registry in a folder: whole or absent while it is made, and moved, copied and archived as one."""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from safetensors.torch import save_file
from torch import zeros

from cluster.local.head import free_port
from pipelines.registry import embedded, store
from pipelines.registry import query as registry
from tests.pipelines.registry.test_registry_server import answers
from tests.pipelines.support import PATIENCE, ROOT
from wave.errors import WaveError


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of the right names."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "config.json").write_text('{"architecture": "vit_tiny_patch16_224"}')
    save_file({"weight": zeros(3)}, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, plain: Path) -> Path:
    """A folder with one version and one file of a run; tests copy it, for the schema takes seconds."""
    folder = tmp_path_factory.mktemp("first") / "100% ä #1"
    add(folder, plain, "d032-l02")
    return folder


def add(folder: Path, plain: Path, alias: str) -> store.Store:
    opened = registry.open_store("", "digits", folder)
    run = registry.batch_run(opened, "batch", "batch", {"a": 1}, {})
    registry.publish(opened, plain, "digits", alias, run, {}, "", {"accuracy": 0.5})
    registry.log_files(opened, run, plain / "config.json")
    registry.end_batch(opened, run, "FINISHED")
    return opened


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def named(folder: Path) -> set[str]:
    """All places that a database names, without the one of MLflow's own experiment."""
    with sqlite3.connect(folder / "mlflow.db") as database:
        pairs = [
            *("experiments.artifact_location", "runs.artifact_uri", "logged_models.artifact_location"),
            *("model_versions.storage_location",),
        ]
        tables = (pair.split(".") for pair in pairs)
        return {str(row[0]) for table, column in tables for row in database.execute(f"SELECT {column} FROM {table}")}


def test_moved(made: Path, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Read first, then written: files are found and made in the new place."""
    old, new = tmp_path / "old", tmp_path / "new place"
    shutil.copytree(made, old)
    add(old, plain, "d032-l02")
    old.rename(new)
    capsys.readouterr()
    pulled = registry.pull(registry.existing_store("", new), "digits", "d032-l02", tmp_path / "pulled")
    assert everything(pulled) == everything(plain)
    assert f"moved from {old}" in capsys.readouterr().err
    opened = add(new, plain, "d032-l03")
    assert [row.alias for row in registry.list_models(opened)] == ["d032-l02", "d032-l03"]
    assert {place for place in named(new) if new.as_uri() not in place and str(new) not in place} == set()
    assert not old.exists()
    assert capsys.readouterr().err == ""


def test_a_copy_leaves_its_original_alone(made: Path, plain: Path, tmp_path: Path):
    before = everything(made)
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    opened = add(copy, plain, "d048-l02")
    assert len(list((copy / "mlartifacts").rglob("model.safetensors"))) == 2
    (tmp_path / "notes.txt").write_text("of the copy")
    registry.log_files(opened, registry.batch_run(opened, "batch", "batch", {}, {}), tmp_path / "notes.txt")
    assert len(list((copy / "mlartifacts").rglob("notes.txt"))) == 1
    pulled = registry.pull(opened, "digits", "d032-l02", tmp_path / "pulled")
    assert everything(pulled) == everything(plain)
    (copy / "mlartifacts").rename(tmp_path / "away")
    with pytest.raises(WaveError, match="copy/mlartifacts"):
        registry.pull(registry.existing_store("", copy), "digits", "d032-l02", tmp_path / "again")
    assert everything(made) == before


def test_a_copy_of_the_database_alone_asks_for_its_own_files(made: Path, plain: Path, tmp_path: Path):
    before = everything(made)
    (tmp_path / "only").mkdir()
    shutil.copy(made / "mlflow.db", tmp_path / "only")
    with pytest.raises(WaveError, match=r"lacks config\.json.* in /.*/only/mlartifacts/"):
        registry.pull(registry.existing_store("", tmp_path / "only"), "digits", "d032-l02", tmp_path / "pulled")
    opened = add(tmp_path / "only", plain, "d032-l02")
    assert everything(registry.pull(opened, "digits", "d032-l02", tmp_path / "pulled")) == everything(plain)
    assert everything(made) == before


def test_plain_mlflow_shows_a_moved_registry(made: Path, tmp_path: Path):
    """``mlflow ui`` as a person starts it, after any command of ours in the new place."""
    new = tmp_path / "new"
    shutil.copytree(made, new)
    registry.list_models(registry.existing_store("", new))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    uri = f"http://127.0.0.1:{(port := free_port(0))}"
    command = [sys.executable, "-m", "mlflow", "ui", "--port", str(port), "--workers", "1"]
    environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=new, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + PATIENCE
        while not answers(uri):
            assert time.monotonic() < end
            time.sleep(0.2)
        with sqlite3.connect(new / "mlflow.db") as database:
            ((run,),) = database.execute("SELECT run_uuid FROM runs")
            ((model,),) = database.execute("SELECT model_id FROM logged_models")
        for original in (new / "mlartifacts").rglob("config.json"):
            original.write_text("the copy's own")  # what is shown is not the original's
        shown = requests.get(f"{uri}/get-artifact", params={"path": "config.json", "run_uuid": run}, timeout=60)
        assert shown.text == "the copy's own"
        place = f"{uri}/ajax-api/2.0/mlflow/logged-models/{model}/artifacts/files"
        assert requests.get(place, params={"artifact_file_path": "config.json"}, timeout=60).text == "the copy's own"
    finally:
        os.killpg(server.pid, 9)
        server.wait()


def test_a_registry_of_before_there_was_the_tag(made: Path, plain: Path, tmp_path: Path):
    before = everything(made)
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    with sqlite3.connect(copy / "mlflow.db") as database:
        database.execute("DELETE FROM experiment_tags")
    assert everything(registry.pull(registry.existing_store("", copy), "digits", "d032-l02", tmp_path / "p"))
    assert {place for place in named(copy) if "100" in place} == set()
    assert everything(made) == before


def test_files_that_a_person_placed_elsewhere_stay_there(tmp_path: Path, plain: Path, made: Path):
    """An experiment made by hand with a place of its own, of the very name."""
    elsewhere, here = tmp_path / "disk" / "mlartifacts", tmp_path / "here"
    here.mkdir()
    elsewhere.mkdir(parents=True)
    shutil.copy(made / "mlflow.db", here)
    client = registry.existing_store("", here).client()
    client.create_experiment("mine", elsewhere.as_uri())
    opened = registry.open_store("", "mine", here)
    run = registry.batch_run(opened, "mine", "mine", {}, {})
    registry.log_files(opened, run, plain / "config.json")
    assert len(list(elsewhere.rglob("config.json"))) == 1
    assert registry.existing_store("", here).client().get_run(run).info.artifact_uri.startswith(elsewhere.as_uri())


def test_a_registry_seen_under_two_paths_while_a_run_writes(made: Path, tmp_path: Path):
    """As a container sees it: what is being written keeps its paths."""
    one, other = tmp_path / "one", tmp_path / "other"
    shutil.copytree(made, one)
    opened = registry.open_store("", "digits", one)
    other.mkdir()
    other.joinpath("mlflow.db").hardlink_to(one / "mlflow.db")
    with store.registering(opened, "digits"):
        before = named(one)
        other.joinpath(".mlflow.db.digits.lock").hardlink_to(one / ".mlflow.db.digits.lock")
        assert registry.list_models(registry.existing_store("", other))
        with pytest.raises(WaveError, match=f"written by process {os.getpid()} under another path"):
            registry.open_store("", "digits", other)
        assert named(one) == before


KILLED = """
import os, signal, sys
from pathlib import Path
import sqlalchemy
from sqlalchemy.engine import Engine
from cluster.local.head import free_port
from pipelines.registry import store

count = 0
def kill(*_):
    global count
    count += 1
    if count == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)

if int(sys.argv[1]):
    sqlalchemy.event.listen(Engine, "before_cursor_execute", kill)
store.open_store("", "digits", Path.cwd())
print(count)
"""


def test_killed_between_the_statements_that_make_the_tables(tmp_path: Path):
    """About 700 of them, and any may be the last: the next run opens the store all the same."""

    def opened(last: int) -> int:
        command = [sys.executable, "-c", KILLED, str(last)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, timeout=PATIENCE, capture_output=True, check=False
        ).returncode

    for last in (60, 300):
        assert opened(last) == -9
        assert not (tmp_path / "mlflow.db").exists()
    assert opened(0) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]


def test_an_empty_file_is_made_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Path):
    class Made:
        def __init__(self, uri: str, root: str) -> None:
            shutil.copy(made / "mlflow.db", uri.removeprefix("sqlite:///"))
            self.engine = self

        def dispose(self) -> None:
            pass

    monkeypatch.setattr(embedded, "SqlAlchemyStore", Made)
    (tmp_path / "mlflow.db").touch()
    registry.open_store("", "digits", tmp_path)
    assert embedded.former_homes(tmp_path / "mlflow.db") == []
