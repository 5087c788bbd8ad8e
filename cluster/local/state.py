"""The notebook of the cluster on this machine: which processes `up --local` started, on which ports."""

import fcntl
import json
import os
import shlex
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from cluster.errors import ClusterError
from cluster.local.processes import started
from pipelines.config import session_folder

VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""By which Ray's own client finds a cluster, the first before the second, and both before the address it is given."""


@dataclass
class Service:
    """One process that we started; `since` tells it from a later process of the same pid."""

    pid: int
    since: str
    url: str

    def alive(self) -> bool:
        """Whether that very process still runs."""
        return started(self.pid) == self.since


@dataclass
class State:
    """What is up. `mark` is in the environment of everything we started, `scratch` is the folder of Ray's session."""

    mark: Annotated[str, Field(pattern=r"^([0-9a-f]{16})?$")] = ""
    scratch: Annotated[str, Field(pattern=rf"^(/([^/]+/)*{session_folder.NAME})?$")] = ""  # `down` removes it
    services: dict[str, Service] = field(default_factory=dict)


_STATE = TypeAdapter(State)


def token_file(folder: Path) -> Path:
    """Where the token of the local head stands, readable by its owner only."""
    return folder / "token"


def load(folder: Path) -> State:
    """The recorded state; an empty one when nothing is recorded. Raises ClusterError for a file that is not ours."""
    file = folder / "state.json"
    try:
        return _STATE.validate_json(file.read_bytes(), strict=True)
    except FileNotFoundError:
        return State()
    except OSError as error:
        raise ClusterError(f"{file} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(map(str, wrong["loc"])) or "the file"
        raise ClusterError(
            f"{file} is not as `up` wrote it ({where}: {wrong['msg']}); end what it names by hand, then delete it"
        ) from None


def save(folder: Path, state: State) -> None:
    """Replace the record in one step, so that an interrupted write loses no pid."""
    with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as file:
        json.dump(asdict(state), file, indent=2)
    os.replace(file.name, folder / "state.json")


def _closed(folder: Path) -> None:
    """Raise ClusterError for a folder that others can enter: the token and the registry lie in it."""
    about = folder.stat()
    if about.st_uid != os.geteuid():
        raise ClusterError(f"{folder} belongs to another user; choose another with --state DIR")
    if stat.S_IMODE(about.st_mode) & 0o077:
        raise ClusterError(
            f"{folder} is open to other users (mode {stat.S_IMODE(about.st_mode):o}), and the token and the registry "
            f"would lie there; chmod 700 {shlex.quote(str(folder))}, or choose another with --state DIR"
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One `up` or `down` at a time. Raises ClusterError when another one is at work."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _closed(folder)
        file = (folder / "lock").open("w")
    except OSError as error:
        raise ClusterError(f"{folder} cannot be written ({error.strerror}); choose another with --state DIR") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClusterError(f"another up or down is at work in {folder}; wait for it to end") from None
        yield
