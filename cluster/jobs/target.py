"""Which cluster is meant, and the token for it."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cluster.errors import ClusterError
from cluster.local import state
from cluster.local.state import VARIABLES
from pipelines.config import proxies


@dataclass(frozen=True)
class Target:
    """A cluster: its Jobs address, its token (empty: none known), MLflow's address if it is local, and why this one."""

    address: str
    token: str
    mlflow: str = ""
    local: bool = False
    why: str = ""

    def __repr__(self) -> str:
        return f"Target({self.address!r}, token={'set' if self.token else 'none'})"  # a token has no place in a log

    @property
    def headers(self) -> dict[str, str]:
        """What carries the token over HTTP; the same that Ray sends with RAY_AUTH_MODE=token."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


def find(address: str, folder: Path) -> Target:
    """The cluster at `address`; when empty that of `up --local`, else of $RAY_API_SERVER_ADDRESS or $RAY_ADDRESS.

    The local head's token is in `folder`; for others Ray's own places count: $RAY_AUTH_TOKEN, $RAY_AUTH_TOKEN_PATH,
    ~/.ray/auth_token. Raises ClusterError when no cluster is known or the address is not one of a Jobs server.
    """
    recorded = state.load(folder)
    head, mlflow = recorded.services.get("ray"), recorded.services.get("mlflow")
    here = head.url if head and head.alive() else ""
    address, why, source = _chosen(address, here)
    address = address.rstrip("/")
    if "://" not in address:
        address = f"http://{address}"
    if not _is_http(address):
        raise ClusterError(f"{source}{shown(address)} is not that of a Jobs server; it looks like http://HOST:8265")
    parts = urlsplit(address)
    # A proxy would read the token on its way to a cluster without TLS, and knows no way to this machine.
    proxies.bypass(os.environ, *([str(parts.hostname)] if parts.scheme == "http" else []))
    if here and _same(address, here):
        token = _read(state.token_file(folder), "the local cluster's token file")
        return Target(here, token, mlflow.url if mlflow and mlflow.alive() else "", local=True, why=why)
    return Target(address, _token(), why=why)


def _chosen(given: str, here: str) -> tuple[str, str, str]:
    """The address that counts, why it does, and the word before it in an error: ours first, then Ray's variables."""
    named = {name: value for name in VARIABLES if (value := os.environ.get(name))}
    if given or here:
        why = "--address" if given else "the one of `up --local`"
        ignored = [f"{name}={shown(value)}" for name, value in named.items() if value.rstrip("/") != (given or here)]
        return given or here, "; not ".join([why, *([", ".join(ignored)] if ignored else [])]), "--address "
    for name, value in named.items():
        # Of a Ray session, as a plain `run` joins it, HOST:6379 may be meant; no token goes there over HTTP.
        if name == VARIABLES[1] and not value.startswith(("http://", "https://")):
            raise ClusterError(
                f"{name}={shown(value)} is not that of a Jobs server; give --address http://HOST:8265, or unset it "
                "and start a cluster here with `python -m cluster up --local`"
            )
        return value, f"${name}", f"{name}="
    raise ClusterError(
        "no cluster: give --address http://HOST:8265, or start one here with `python -m cluster up --local`"
    )


def shown(address: str) -> str:
    """An address without the password that it may hold."""
    return re.sub(r"//[^/\s]*@", "//***@", address)


def _is_http(address: str) -> bool:
    try:
        parts = urlsplit(address)
        named = bool(parts.hostname) and not re.search(r"[\x00-\x20]", address)
        return parts.scheme in ("http", "https") and named and parts.port != 0
    except ValueError:  # a bracket that nothing closes, or a port that is no number up to 65535
        return False


def _same(one: str, other: str) -> bool:
    return one.replace("//localhost:", "//127.0.0.1:") == other


def _token() -> str:
    if token := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return _sendable(token, "RAY_AUTH_TOKEN")
    if explicit := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return _read(Path(explicit), "RAY_AUTH_TOKEN_PATH")
    file = Path.home() / ".ray" / "auth_token"
    return _read(file, "Ray's token file") if file.exists() else ""


def _read(file: Path, what: str) -> str:
    try:
        return _sendable(file.read_text().strip(), f"{what} {file}")
    except OSError as error:
        raise ClusterError(f"{what} {file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ClusterError(f"{what} {file} is not text; a token is one line of letters and digits") from None


def _sendable(token: str, where: str) -> str:
    if not (token.isascii() and token.isprintable()):
        raise ClusterError(f"{where}: a token is one line of letters and digits, as an HTTP header can carry")
    return token
