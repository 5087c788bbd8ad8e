"""Opening a store: what cannot be used is one quick line, and nothing is made by looking."""

import sqlite3
import time
from pathlib import Path

import pytest

from pipelines.registry import query as registry
from pipelines.registry import reachable, store
from wave.errors import WaveError


def test_a_deleted_experiment_comes_back(opened: store.Store, workdir: Path):
    opened.client().delete_experiment(opened.experiment_id)
    assert registry.open_store("", "digits", workdir) == opened
    assert opened.client().get_experiment(opened.experiment_id).lifecycle_stage == "active"


def test_a_relative_database_stands_in_the_working_folder(opened: store.Store, workdir: Path):
    assert registry.open_store("sqlite:///mlflow.db", "digits", workdir) == opened
    assert registry.existing_store(opened.tracking_uri, Path("/")).tracking_uri == opened.tracking_uri


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("http://127.0.0.1:9", "no MLflow server answers at http://127.0.0.1:9"),
        ("http://me:secret@127.0.0.1:9", r"me:\*\*\*@127"),
        ("http://nowhere.invalid:5000", "no MLflow server answers"),
        ("http://[", "no MLflow server answers|not a URI"),
        ("postgresql://me:secret@127.0.0.1:9/db", r"cannot be used"),
        ("nosuch://host", "nosuch"),
        ("./mlruns", "given up its file store"),
        ("file:///tmp/mlruns", "given up its file store"),
        ("sqlite://", "in memory"),
        ("sqlite:////proc/nowhere/mlflow.db", "cannot be used"),
    ],
)
def test_an_unusable_store_is_one_quick_line(uri: str, says: str, tmp_path: Path):
    started = time.monotonic()
    with pytest.raises(WaveError, match=says) as raised:
        registry.open_store(uri, "digits", tmp_path)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert time.monotonic() - started < 60


def test_a_folder_that_no_database_uri_can_name(tmp_path: Path):
    with pytest.raises(WaveError, match=r"without '\?'"):
        registry.open_store("", "digits", tmp_path / "what?")


def test_reading_makes_no_database(tmp_path: Path):
    with pytest.raises(WaveError, match="there is no MLflow database"):
        registry.existing_store("", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_locked_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reachable, "PROBE_SECONDS", 0.2)
    holder = sqlite3.connect(tmp_path / "mlflow.db")
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(WaveError, match=r"mlflow\.db cannot be used \(database is locked\); end the program"):
        registry.open_store("", "digits", tmp_path)
    holder.close()


def test_a_file_that_is_no_database(tmp_path: Path):
    (tmp_path / "mlflow.db").write_text("not a database " * 100)
    with pytest.raises(WaveError, match="file is not a database"):
        registry.open_store("", "digits", tmp_path)


@pytest.mark.parametrize("complete", [True, False], ids=["all-tables", "other-tables"])
def test_a_database_of_another_version(opened: store.Store, workdir: Path, tmp_path: Path, complete: bool):
    with sqlite3.connect(workdir / "mlflow.db") as source, sqlite3.connect(tmp_path / "mlflow.db") as copy:
        source.backup(copy)
        copy.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
        if not complete:
            copy.execute("DROP TABLE model_version_tags")
    with pytest.raises(WaveError, match="another MLflow version than this") as raised:
        registry.open_store("", "digits", tmp_path)
    assert "\n" not in str(raised.value)
