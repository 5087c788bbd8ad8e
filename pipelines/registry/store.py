"""Where MLflow keeps things: a store, opened once by the driver and described by a value that any process can use."""

import fcntl
import logging
import os
import re
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import mlflow
import requests
import sqlalchemy
from alembic.util.exc import CommandError
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from pipelines.runtime.files import exclusive
from wave.errors import WaveError

PROBE_SECONDS = 8.0
"""How long opening waits for a server's answer or a database's lock; afterwards MLflow's own retries (minutes) hold."""

_CHATTY = ("alembic", "mlflow.store.db.utils", "mlflow.store.model_registry.abstract_store", "mlflow.utils")
_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306, "mssql": 1433}


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
        if mlflow.get_tracking_uri() != self.tracking_uri:
            mlflow.set_tracking_uri(self.tracking_uri)
        mlflow.set_registry_uri(self.tracking_uri)
        return MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri)


def open_store(tracking_uri: str, experiment: str, workdir: Path) -> Store:
    """Open the store and find or create the experiment; the driver calls this before any other process writes.

    ``tracking_uri`` "" means ``mlflow.db`` and ``mlartifacts/`` in ``workdir``, where a bare ``mlflow ui`` shows them.
    The first call creates the database's schema (several seconds); others that open it meanwhile wait for it.
    A deleted experiment is restored, with its runs.

    Raises:
        WaveError: the server does not answer, or the database cannot be opened, is locked, is none, or belongs to
            another MLflow version; all within seconds.
    """
    uri, artifacts = _resolve(tracking_uri, workdir)
    # fifty lines on a schema being made, and one on waiting for each version
    for logger in _CHATTY:
        logging.getLogger(logger).setLevel(logging.WARNING)
    with _alone(uri), explained(uri):
        _probe(uri, create=True)
        client = Store(uri, "").client()
        return Store(uri, _experiment_id(client, experiment, artifacts))


def existing_store(tracking_uri: str, workdir: Path) -> Store:
    """Open a store to read its registry; creates nothing. Raises WaveError as `open_store`, or if there is none."""
    uri, _ = _resolve(tracking_uri, workdir)
    _probe(uri, create=False)
    return Store(uri, "")


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    """One process at a time opens a SQLite database: its folder is locked, so no file of ours stays beside it."""
    if not uri.startswith("sqlite:"):
        yield
        return
    parent = Path(str(_url(uri).database)).parent
    with suppress(OSError):  # the probe says it better
        parent.mkdir(parents=True, exist_ok=True)
    try:
        folder = os.open(parent, os.O_RDONLY)
    except OSError:
        yield
        return
    try:
        with suppress(OSError):  # a network share may know no such locks
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


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
        raise WaveError(f"MLflow store {shown(uri)}: {_without_password(text, uri)[:500]}") from error


def shown(uri: str) -> str:
    """The URI without its password, to print; also of what is no URI."""
    return re.sub(r"(^|//)([^/\s:@]*):[^/\s]*@", r"\1\2:***@", uri)


def _without_password(text: str, uri: str) -> str:
    """What requests and SQLAlchemy say names the address that they were given."""
    password = urlsplit(uri).password or ""
    for secret in {password, unquote(password)} - {""}:
        text = text.replace(secret, "***")
    return text


def _resolve(tracking_uri: str, workdir: Path) -> tuple[str, str | None]:
    """The absolute tracking URI, and where a new experiment keeps its artifacts (None: the server decides)."""
    folder = workdir.resolve()
    uri = tracking_uri or "sqlite:///mlflow.db"
    given = f"mlflow.tracking_uri={shown(uri)!r}"
    if ("://" not in uri and not uri.startswith("databricks")) or uri.startswith("file:"):
        instead = "use sqlite:///mlflow.db or http://HOST:PORT"
        raise WaveError(f"{given} is a folder, and MLflow has given up its file store; {instead}")
    try:
        _ = urlsplit(uri).port
    except ValueError as error:
        raise WaveError(f"{given} is not a URI ({error})") from error
    if not uri.startswith("sqlite:"):
        served = uri.startswith(("http:", "https:", "databricks"))
        return uri, None if served else (folder / "mlartifacts").as_uri()
    database = _url(uri).database
    if not database or database == ":memory:":
        raise WaveError(f"{given} lives in memory, where no other process sees it; name a file")
    path = folder / database
    uri = f"sqlite:///{path}"
    if _url(uri).database != str(path):
        raise WaveError(f"the folder {str(path.parent)!r} cannot be written in a database URI; choose one without '?'")
    return uri, (path.parent / "mlartifacts").as_uri()


def _url(uri: str) -> URL:
    try:
        return make_url(uri)
    except (SQLAlchemyError, ValueError) as error:
        raise WaveError(f"mlflow.tracking_uri={shown(uri)!r} is not a URI ({error})") from error


def _probe(uri: str, create: bool) -> None:
    """Fail in seconds where MLflow would retry for minutes."""
    if uri.startswith(("http:", "https:")):
        _probe_server(uri)
    elif uri.startswith("sqlite:"):
        _probe_sqlite(Path(str(_url(uri).database)), create)
    elif not uri.startswith("databricks"):
        _probe_database(uri)


def _probe_server(uri: str) -> None:
    try:
        answer = requests.get(uri.rstrip("/") + "/health", timeout=PROBE_SECONDS)
    except (requests.RequestException, ValueError) as error:
        raise WaveError(
            f"no MLflow server answers at {shown(uri)} ({type(error).__name__}); start it or see mlflow.tracking_uri"
        ) from error
    if answer.status_code == 404 or answer.status_code >= 500:
        raise WaveError(
            f"what answers at {shown(uri)} is no MLflow server at work (status {answer.status_code} for /health); "
            "see mlflow.tracking_uri"
        )
    if answer.status_code == 403 and "Host" in answer.text:
        raise WaveError(
            f"the MLflow server at {shown(uri)} refuses this host name; start it with --allowed-hosts naming it"
        )


def _probe_sqlite(path: Path, create: bool) -> None:
    if not create and not path.is_file():
        raise WaveError(
            f"there is no MLflow database {path}; run an experiment in this folder, or give its tracking URI"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=PROBE_SECONDS)) as database:
            database.execute("BEGIN IMMEDIATE")
            database.rollback()
    except (OSError, sqlite3.Error) as error:
        advice = "end the program that holds it" if "locked" in str(error) else "choose another mlflow.tracking_uri"
        raise WaveError(f"the MLflow database {path} cannot be used ({error}); {advice}") from error


def _probe_database(uri: str) -> None:
    url = _url(uri)
    try:
        engine = sqlalchemy.create_engine(url)
        if url.host:
            port = url.port or _PORTS.get(url.get_backend_name(), 0)
            socket.create_connection((url.host, port), timeout=PROBE_SECONDS).close()
        with engine.connect():
            pass
        engine.dispose()
    except (OSError, ImportError, SQLAlchemyError) as error:
        text = str(error).splitlines()[0]
        raise WaveError(
            f"the MLflow database {shown(uri)} cannot be used ({text}); correct mlflow.tracking_uri"
        ) from error


def _experiment_id(client: MlflowClient, name: str, artifacts: str | None) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, artifact_location=artifacts)
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
    path = make_url(store.tracking_uri).database if store.tracking_uri.startswith("sqlite:") else None
    if not path or path == ":memory:":
        yield
        return
    lock = Path(path).with_name(f".{Path(path).name}.{registered_model}.lock")
    with exclusive(lock, f"registers {registered_model} in {path}; wait for it, or set another name"):
        yield
