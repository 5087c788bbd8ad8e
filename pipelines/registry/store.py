"""Where MLflow keeps things: a store, opened once by the driver and described by a value that any process can use."""

import contextlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import mlflow
import requests
from alembic.util.exc import CommandError
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from pipelines.config import local_login
from pipelines.registry import abandoned, embedded
from pipelines.registry.reachable import parsed, probe, shown
from pipelines.runtime.files import exclusive
from pipelines.runtime.printable import printable
from wave.errors import WaveError

VARIABLE = "MLFLOW_TRACKING_URI"
"""Names the store where neither the file nor an option does, as in every program that uses MLflow."""

_CHATTY = (
    *("alembic", "mlflow.store.db.utils", "mlflow.store.model_registry.abstract_store", "mlflow.utils"),
    "mlflow.store.artifact",
)


@dataclass(frozen=True)
class Store:
    """An MLflow store and one experiment in it; picklable, and independent of the working folder.

    ``experiment_id`` is "" for a store that is only read.
    """

    tracking_uri: str
    experiment_id: str

    def client(self) -> MlflowClient:
        """A client of this store. It also becomes MLflow's store of this process: ``create_model_version`` with a
        ``models:/`` source looks the model up there, whatever URI its client was given (seen in 3.17.2)."""
        with _variables_kept():
            if mlflow.get_tracking_uri() != self.tracking_uri:
                mlflow.set_tracking_uri(self.tracking_uri)
            mlflow.set_registry_uri(self.tracking_uri)
        local_login.log_in(self.tracking_uri)
        return MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri)


@contextmanager
def _variables_kept() -> Iterator[None]:
    """MLflow's setters write the variables by which a person names a store; they keep what the person said."""
    names = (VARIABLE, "MLFLOW_REGISTRY_URI")
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def open_store(tracking_uri: str, experiment: str, workdir: Path) -> Store:
    """Open the store and find or create the experiment; the driver calls this before any other process writes.

    ``tracking_uri`` "" means ``mlflow.db`` and ``mlartifacts/`` in ``workdir``, where a bare ``mlflow ui`` shows them.
    The first call creates the database's schema (several seconds); others that open it meanwhile wait for it.
    A deleted experiment is restored, with its runs.

    Raises:
        WaveError: the server does not answer, or the database cannot be opened, is locked, is none, or belongs to
            another MLflow version; all within seconds.
    """
    uri = _resolve(tracking_uri, workdir)
    database = _database(uri)
    with embedded.alone(database) if database else contextlib.nullcontext(False) as locked, explained(uri):
        probe(uri, create=True)
        if database:
            embedded.create(database, locked)
            _settle(database)
        beside = (database.parent if database else workdir.resolve()) / embedded.ARTIFACTS
        served = uri.startswith(("http:", "https:", "databricks"))
        client = Store(uri, "").client()
        _end_abandoned(client)
        return Store(uri, _experiment_id(client, experiment, None if served else beside.as_uri(), bool(database)))


def existing_store(tracking_uri: str, workdir: Path) -> Store:
    """Open a store to read its registry; creates nothing. Raises WaveError as `open_store`, or if there is none."""
    uri = _resolve(tracking_uri, workdir)
    probe(uri, create=False)
    database = _database(uri)
    if database and embedded.former_homes(database) and not embedded.registering(database):
        with embedded.alone(database), explained(uri):
            _settle(database)
    found = Store(uri, "")
    with explained(uri):
        _end_abandoned(found.client())
    return found


def _end_abandoned(client: MlflowClient) -> None:
    for run in abandoned.end_abandoned(client):
        notice(f"mlflow: run {printable(run)} was left RUNNING by a process that is gone; ended as KILLED")


def _settle(database: Path) -> None:
    """Where the database was moved or copied, its files are those beside it, and it is said."""
    if homes := embedded.former_homes(database):
        embedded.settle(database, homes)
        old, new = (", ".join(map(unquote, homes)).replace("file://", ""), database.parent)
        notice(f"registry: moved from {old}; its files are those in {new / embedded.ARTIFACTS}")


def notice(text: str) -> None:
    """A word that is no result, to stderr, so that what a command prints can be used by another."""
    click.echo(text, err=True)


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn what MLflow raises into one WaveError line that names the store."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, CommandError, requests.RequestException) as error:
        text = " ".join(str(error).split())
        if isinstance(error, CommandError) or "out-of-date database schema" in text:
            text = (
                f"the database was written by another MLflow version than this {mlflow.__version__}; use that version, "
                f"or copy the database and run `mlflow db upgrade` on it ({text[:120]})"
            )
        if isinstance(error, SQLAlchemyError) and "already exists" in text:
            text = (
                f"an earlier version was killed while it made this database, which is empty: remove it ({text[:120]})"
            )
        raise WaveError(f"MLflow store {shown(uri)}: {_without_password(text, uri)[:500]}") from error


def _without_password(text: str, uri: str) -> str:
    """What requests and SQLAlchemy say names the address that they were given."""
    password = urlsplit(uri).password or ""
    for secret in {password, unquote(password)} - {""}:
        text = text.replace(secret, "***")
    return text


def _resolve(tracking_uri: str, workdir: Path) -> str:
    """The absolute tracking URI: what is given, else what the variable says (and then it is said), else mlflow.db."""
    # fifty lines on a schema being made, one on waiting for each version, and one where files are gone
    for logger in _CHATTY:
        logging.getLogger(logger).setLevel(logging.WARNING)
    told = os.environ.get(VARIABLE, "").strip()
    uri = tracking_uri or told or "sqlite:///mlflow.db"
    given = f"mlflow.tracking_uri={shown(uri)!r}"
    if not tracking_uri and told:
        given = f"{VARIABLE}={shown(uri)!r}"
        notice(f"mlflow: {shown(uri)} ({VARIABLE})")
    if ("://" not in uri and not uri.startswith("databricks")) or uri.startswith("file:"):
        instead = "use sqlite:///mlflow.db or http://HOST:PORT"
        raise WaveError(f"{given} is a folder, and MLflow has given up its file store; {instead}")
    try:
        _ = urlsplit(uri).port
    except ValueError as error:
        raise WaveError(f"{given} is not a URI ({error})") from error
    if not uri.startswith("sqlite:"):
        return uri
    database = parsed(uri).database
    if not database or database == ":memory:":
        raise WaveError(f"{given} lives in memory, where no other process sees it; name a file")
    path = workdir.resolve() / database
    uri = f"sqlite:///{path}"
    if parsed(uri).database != str(path):
        raise WaveError(f"the folder {str(path.parent)!r} cannot be written in a database URI; choose one without '?'")
    return uri


def _database(uri: str) -> Path | None:
    """The file of a SQLite store."""
    return Path(str(parsed(uri).database)) if uri.startswith("sqlite:") else None


def _experiment_id(client: MlflowClient, name: str, artifacts: str | None, beside: bool) -> str:
    """``beside``: its files stand beside the database and move with it."""
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, artifacts, {embedded.BESIDE: "beside the database"} if beside else {})
        except MlflowException as error:
            found = client.get_experiment_by_name(name)
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                raise
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return found.experiment_id


@contextmanager
def registering(store: Store, registered_model: str) -> Iterator[None]:
    """One run at a time gives a SQLite store new versions of a model; raises :class:`WaveError` for a second one.

    A server's store has no place for such a lock: there ``cluster submit`` refuses a second job of a name.
    """
    database = _database(store.tracking_uri)
    if not database:
        yield
        return
    lock = embedded.lock_of(database, registered_model)
    with exclusive(lock, f"registers {registered_model} in {database}; wait for it, or set another name"):
        yield
