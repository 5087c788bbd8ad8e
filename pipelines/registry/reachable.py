"""Whether an MLflow store can be used: said in seconds, where MLflow would try for minutes."""

import os
import re
import socket
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import requests
import sqlalchemy
from mlflow.utils.credentials import get_default_host_creds
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from wave.errors import WaveError

PROBE_SECONDS = 8.0
"""How long opening waits for a server's answer or a database's lock; afterwards MLflow's own retries (minutes) hold."""

_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306, "mssql": 1433}


def shown(uri: str) -> str:
    """The URI without its password, to print; also of what is no URI."""
    return re.sub(r"(^|//)([^/\s:@]*):[^/\s]*@", r"\1\2:***@", uri)


def probe(uri: str, create: bool) -> None:
    """Raise WaveError in seconds where MLflow would retry for minutes. ``create``: a database need not be there."""
    if uri.startswith(("http:", "https:")):
        _probe_server(uri)
    elif uri.startswith("sqlite:"):
        _probe_sqlite(Path(str(parsed(uri).database)), create)
    elif not uri.startswith("databricks"):
        _probe_database(uri)


def _probe_server(uri: str) -> None:
    """Asks as MLflow's client does: with its certificates, its switch for TLS and its proxies."""
    trust = get_default_host_creds(uri)
    try:
        answer = requests.get(
            uri.rstrip("/") + "/health", timeout=PROBE_SECONDS, verify=trust.verify, cert=trust.client_cert_path
        )
    except (requests.RequestException, OSError, ValueError) as error:
        raise WaveError(f"no MLflow server answers at {shown(uri)} ({_why(error, uri)})") from error
    if answer.status_code == 404 or answer.status_code >= 500:
        raise WaveError(
            f"what answers at {shown(uri)} is no MLflow server at work (status {answer.status_code} for /health); "
            "see mlflow.tracking_uri"
        )
    if answer.status_code == 403 and "Host" in answer.text:
        raise WaveError(
            f"the MLflow server at {shown(uri)} refuses this host name; start it with --allowed-hosts naming it"
        )


def _why(error: Exception, uri: str) -> str:
    """What kept the server from answering, and what to change."""
    name = type(error).__name__
    if isinstance(error, requests.exceptions.ProxyError):
        scheme = urlsplit(uri).scheme
        names = [
            n for n in (f"{scheme}_proxy", f"{scheme.upper()}_PROXY", "all_proxy", "ALL_PROXY") if os.environ.get(n)
        ]
        told = f"{names[0]}={shown(os.environ[names[0]])}" if names else "the proxy"
        return f"{name}: {told} does not lead there; correct it, or name the host in no_proxy"
    names = ("MLFLOW_TRACKING_SERVER_CERT_PATH", "MLFLOW_TRACKING_CLIENT_CERT_PATH", "REQUESTS_CA_BUNDLE")
    given = [f"{n}={os.environ[n]}" for n in (*names, "CURL_CA_BUNDLE") if os.environ.get(n)]
    if isinstance(error, requests.exceptions.SSLError):
        text = f"; certificates are those of {', '.join(given)}" if given else ""
        return f"its certificate is not trusted{text}; {names[0]} names a file of the authority that signed it"
    if given and "certificate" in str(error).lower():  # requests: "Could not find a suitable TLS CA certificate bundle"
        return f"{', '.join(given)} is no file of certificates"
    return f"{name}; start it or see mlflow.tracking_uri"


def _probe_sqlite(path: Path, create: bool) -> None:
    if not path.is_file() and not create:
        raise WaveError(
            f"there is no MLflow database {path}; run an experiment in this folder, or give its tracking URI"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():  # connecting would leave an empty file
            with tempfile.TemporaryFile(dir=path.parent):
                return
        with closing(sqlite3.connect(path, timeout=PROBE_SECONDS)) as database:
            database.execute("BEGIN IMMEDIATE")
            database.rollback()
    except (OSError, sqlite3.Error) as error:
        why = getattr(error, "strerror", None) or error
        advice = "end the program that holds it" if "locked" in str(error) else "choose another mlflow.tracking_uri"
        raise WaveError(f"the MLflow database {path} cannot be used ({why}); {advice}") from error


def _probe_database(uri: str) -> None:
    url = parsed(uri)
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


def parsed(uri: str) -> URL:
    """The URI's parts; raises :class:`WaveError` for what is no URI."""
    try:
        return make_url(uri)
    except (SQLAlchemyError, ValueError) as error:
        raise WaveError(f"mlflow.tracking_uri={shown(uri)!r} is not a URI ({error})") from error
