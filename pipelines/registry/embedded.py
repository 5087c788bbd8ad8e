"""A registry of its own in a folder: ``mlflow.db`` and ``mlartifacts/`` beside it, made whole and moved together."""

import contextlib
import fcntl
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from wave.errors import WaveError

ARTIFACTS = "mlartifacts"
BESIDE = "wave.artifacts"
"""Tag of an experiment whose files stand in ``mlartifacts/`` beside the database, wherever that is."""

_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
    ("model_versions", "source"),
)
_OURS = f"""
    SELECT DISTINCT e.artifact_location, t.value IS NOT NULL
    FROM experiments e LEFT JOIN experiment_tags t ON t.experiment_id = e.experiment_id AND t.key = '{BESIDE}'
    WHERE e.artifact_location LIKE 'file:///%/{ARTIFACTS}'
"""


@contextlib.contextmanager
def alone(database: Path) -> Iterator[bool]:
    """One process at a time opens a database: its folder is locked, so that no file of ours stays beside it.

    False where the file system knows no such locks, or the folder cannot be made.
    """
    with suppress(OSError):
        database.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder = os.open(database.parent, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        locked = True
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
        except OSError:  # a network share
            locked = False
        yield locked
    finally:
        os.close(folder)


def create(database: Path, locked: bool) -> None:
    """Make the database with all of MLflow's tables unless it is there: complete, or not at all.

    MLflow makes them in several steps, and a database that was cut off between two never opens again. ``locked`` says
    that no other process can be at it, so what an earlier one left is removed.
    """
    if database.exists() and database.stat().st_size:
        return
    prefix = f".{database.name}-"
    if locked:
        for left in database.parent.glob(f"{prefix}*"):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=database.parent) as folder:
        new = Path(folder) / database.name
        store = SqlAlchemyStore(f"sqlite:///{new}", str(database.parent / "mlruns"))
        store.engine.dispose()
        os.replace(new, database)


def former_homes(database: Path) -> list[str]:
    """URIs of folders where the database stood when files were last written; empty unless it was moved or copied.

    Databases from before there was the tag are taken to have been moved unless their files are still there only.
    """
    here, found = database.parent.as_uri(), list[str]()
    with closing(sqlite3.connect(database)) as connection, suppress(sqlite3.OperationalError):  # other tables: MLflow's
        for location, tagged in connection.execute(_OURS).fetchall():
            home = str(location).removesuffix(f"/{ARTIFACTS}")
            stayed = (_path(home) / ARTIFACTS).is_dir() and not (database.parent / ARTIFACTS).is_dir()
            if home != here and (tagged or not stayed):
                found.append(home)
    return found


def settle(database: Path, homes: list[str]) -> None:
    """Let every file that the database names stand beside it, where it was in one of the ``homes`` before.

    Call it in :func:`alone`. MLflow keeps whole paths, so a copy would read and write the files of the original.
    Raises :class:`WaveError` while a run is registering in the database: it would lose its files' place.
    """
    if holder := registering(database):
        raise WaveError(f"{database} is written by process {holder} under another path; wait for it, or use that path")
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("BEGIN IMMEDIATE")
        for home in homes:
            for name in (ARTIFACTS, "mlruns"):
                for old, new in (
                    (f"{home}/{name}", (database.parent / name).as_uri()),
                    (str(_path(home) / name), str(database.parent / name)),
                ):
                    for table, column in _LOCATIONS:
                        connection.execute(
                            f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                            f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                            (new, len(old) + 1, old, len(old) + 1, f"{old}/"),
                        )


def lock_of(database: Path, registered_model: str) -> Path:
    """The file that a run holds while it registers versions of the model."""
    return database.with_name(f".{database.name}.{registered_model}.lock")


def registering(database: Path) -> str:
    """The process that holds one of the database's locks, "" if none does."""
    for lock in database.parent.glob(f".{database.name}.*.lock"):
        with suppress(OSError), lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip() or "unknown"
    return ""


def _path(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))
