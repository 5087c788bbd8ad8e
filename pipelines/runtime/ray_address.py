"""Which Ray a run uses: the setting's, the variable's, or one of its own; wrong and silent ones are one line, soon."""

import os
import re
import socket
import stat
from pathlib import Path
from urllib.parse import urlsplit

from pipelines.config.cluster import Cluster
from wave.errors import WaveError

VARIABLE = "RAY_ADDRESS"
PROBE_SECONDS = 8.0


def address(cluster: Cluster) -> tuple[str, str]:
    """Where Ray runs, "" for a Ray of our own, and what says so: the setting, or the variable where it is silent."""
    where, source = cluster.address, "cluster.address"
    if where in ("", "auto") and (named := os.environ.get(VARIABLE)):
        where, source = named, VARIABLE
    return ("" if where == "local" else where), source


def reachable(cluster: Cluster) -> tuple[str, str]:
    """The same, once something answers there. Raises :class:`WaveError` where Ray would try for two minutes."""
    where, source = address(cluster)
    if where == "auto":
        where = _running(source)
    if not where:
        return where, source
    host, port = _endpoint(where, source)
    try:
        socket.create_connection((host, port), timeout=PROBE_SECONDS).close()
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise WaveError(
            f"{source}: no Ray session on {where}: {why}; start Ray there, or {_drop(source)} to use this machine"
        ) from None
    return where, source


def shown(where: str) -> str:
    """An address without the password that it may hold."""
    return re.sub(r"//[^/\s]*@", "//***@", where)


def _endpoint(where: str, source: str) -> tuple[str, int]:
    try:
        parts = urlsplit(where if "://" in where else f"//{where}")
        if parts.scheme in ("", "ray") and parts.hostname and parts.port and not parts.username:
            return parts.hostname, parts.port
    except ValueError:  # a port that is no number up to 65535, or half a bracket
        pass
    rule = "it is HOST:6379 or ray://HOST:10001"
    if where.startswith(("http:", "https:")):
        rule += ", and http:// is for `python -m cluster submit --address`"
    raise WaveError(
        f"{source}: no Ray session on {shown(where)}: {rule}; correct it, or {_drop(source)} to use this machine"
    )


def _drop(source: str) -> str:
    return f"unset {VARIABLE}" if source == VARIABLE else "leave it out"


def _running(source: str) -> str:
    """The address of the Ray that this user, or root, started last on this machine with ``ray start``.

    Ray's own search takes any user's: whoever runs that Ray would get our code and token, and could run code here.
    """
    parent = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    note = Path(parent, "ray", "ray_current_cluster")
    try:
        with open(os.open(note, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), encoding="utf-8") as file:
            about = os.fstat(file.fileno())
            if stat.S_ISREG(about.st_mode) and about.st_uid in (0, os.geteuid()):
                return file.read(300).strip()
    except (OSError, UnicodeDecodeError):
        pass
    raise WaveError(
        f'{source} = "auto": no Ray session of yours on this machine; start one (`ray start --head`), '
        f"or {_drop(source)} to let this run start its own"
    )
