"""Which cluster is meant, and the token for it."""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from . import state
from .errors import ClusterError


@dataclass(frozen=True)
class Target:
    """A cluster: its Jobs address, its token (empty: none known), and MLflow's address when it is the local one."""

    address: str
    token: str
    mlflow: str = ""
    local: bool = False

    def __repr__(self) -> str:
        return f"Target({self.address!r}, token={'set' if self.token else 'none'})"  # a token has no place in a log

    @property
    def headers(self) -> dict[str, str]:
        """What carries the token over HTTP; the same that Ray sends with RAY_AUTH_MODE=token."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


def find(address: str, folder: Path) -> Target:
    """The cluster at `address`; when empty that of `up --local`, else $RAY_API_SERVER_ADDRESS.

    The local head's token is in `folder`; for others Ray's own places count: $RAY_AUTH_TOKEN, $RAY_AUTH_TOKEN_PATH,
    ~/.ray/auth_token. Raises ClusterError when no cluster is known or the address is not one of a Jobs server.
    """
    recorded = state.load(folder)
    head, mlflow = recorded.services.get("ray"), recorded.services.get("mlflow")
    here = head.url if head and head.alive() else ""
    address = (address or here or os.environ.get("RAY_API_SERVER_ADDRESS", "")).rstrip("/")
    if not address:
        raise ClusterError(
            "no cluster: give --address http://HOST:8265, or start one here with `python -m cluster up --local`"
        )
    if "://" not in address:
        address = f"http://{address}"
    if not _is_http(address):
        raise ClusterError(f"--address {address} is not that of a Jobs server; it looks like http://HOST:8265")
    if here and _same(address, here):
        token = state.token_file(folder).read_text().strip()
        return Target(here, token, mlflow.url if mlflow and mlflow.alive() else "", local=True)
    return Target(address, _token())


def _is_http(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a bracket that nothing closes, or a port that is no number up to 65535
        return False


def _same(one: str, other: str) -> bool:
    return one.replace("//localhost:", "//127.0.0.1:") == other


def _token() -> str:
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return token
    explicit = os.environ.get("RAY_AUTH_TOKEN_PATH")
    file = Path(explicit) if explicit else Path.home() / ".ray" / "auth_token"
    try:
        return file.read_text().strip()
    except OSError as error:
        if explicit:
            raise ClusterError(f"RAY_AUTH_TOKEN_PATH={file} cannot be read: {error.strerror}") from error
        return ""
