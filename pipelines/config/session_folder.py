"""The folder of a Ray session: closed to other users, short enough for Ray's sockets, and gone with its process.

Ray opens its temporary folder, and the code of workers in it, to everybody (mode 0777). So that folder lies inside one
of ours that only its owner can enter. A lock on the folder tells whether it is in use: the system drops it when the
process that holds it ends, however it ends, and it holds across containers, where a process id would not.

`pipelines` and `cluster` both start Ray; this file imports nothing of either.
"""

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

PREFIX = "wave-ray-"
NAME = rf"{PREFIX}[a-z0-9_]{{8}}"
LONGEST = 22
"""Characters of a parent folder, of the 107 that a Unix socket's path may have; Ray needs 66, our own name 19."""
_RAY, _CODE, _PYTHON = "r", "code", "python"


@dataclass(frozen=True)
class SessionFolder:
    """A folder in use as long as a process holds ``lock``, an open file."""

    path: Path
    lock: int

    @property
    def ray(self) -> str:
        """What Ray gets as its temporary folder."""
        return str(self.path / _RAY)

    @property
    def code(self) -> Path:
        """Where to put what workers import."""
        return self.path / _CODE

    def interpreter(self, executable: str, prefix: str) -> str:
        """``executable`` by a path that Ray's shell takes for one word: through a link here, if it has blanks.

        Raises OSError where that cannot be.
        """
        if re.fullmatch(r"[\w@%+=:,./-]*", executable, re.ASCII):
            return executable
        if not Path(executable).is_relative_to(prefix):
            raise OSError(f"Ray cannot start {executable}, as its path is more than one word to a shell; move it")
        link = self.path / _PYTHON
        link.symlink_to(prefix)
        return str(link / Path(executable).relative_to(prefix))

    def remove(self) -> None:
        """Delete the folder and give up the lock."""
        remove(self.path)
        os.close(self.lock)


def make() -> SessionFolder:
    """A new folder, after what ended processes of this user left. Raises OSError that says in one line what to change.

    It lies in $RAY_TMPDIR, or else in /tmp whatever $TMPDIR is, which batch systems make too long.
    """
    parent = _parent()
    sweep(parent)
    # Under another name first, so that nobody sweeps it before its lock is held.
    made = tempfile.mkdtemp(prefix=f".{PREFIX}", dir=parent)
    lock = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    fcntl.flock(lock, fcntl.LOCK_EX)
    path = parent / Path(made).name.removeprefix(".")
    os.rename(made, path)
    return SessionFolder(path, lock)


def _parent() -> Path:
    if chosen := os.environ.get("RAY_TMPDIR"):
        parent = Path(chosen)
        if len(os.fsencode(parent)) > LONGEST:
            raise OSError(f"RAY_TMPDIR={chosen} is longer than {LONGEST} characters, too long for Ray; unset it")
        if not _safe(parent):
            raise OSError(f"RAY_TMPDIR={chosen} is no folder of yours that others cannot change; unset it")
        return parent
    for parent in (Path("/tmp"), Path("/var/tmp"), Path(tempfile.gettempdir())):
        if len(os.fsencode(parent)) <= LONGEST and _safe(parent):
            return parent
    raise OSError(
        "/tmp and /var/tmp cannot hold Ray's files safely: neither is writable with mode 1777; "
        f"set RAY_TMPDIR to a folder of yours whose path has at most {LONGEST} characters"
    )


def _safe(parent: Path) -> bool:
    """Whether a folder can be made there that nobody else can rename or replace."""
    try:
        mode = parent.stat().st_mode
    except OSError:
        return False
    closed = not mode & (stat.S_IWGRP | stat.S_IWOTH) or bool(mode & stat.S_ISVTX)
    return stat.S_ISDIR(mode) and closed and os.access(parent, os.W_OK | os.X_OK)


def sweep(parent: Path) -> None:
    """Remove what ended processes of this user left in ``parent``, and nothing else; no link is followed."""
    for name in os.listdir(parent) if os.access(parent, os.R_OK) else []:
        if not re.fullmatch(NAME, name):
            continue
        with contextlib.suppress(OSError):  # another process sweeps, or it is in use
            lock = os.open(parent / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                found = os.fstat(lock)
                ours = found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) == stat.S_IRWXU
                if ours and set(os.listdir(lock)) <= {_RAY, _CODE, _PYTHON}:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove(parent / name)
            finally:
                os.close(lock)


def remove(path: Path, seconds: float = 2.0) -> None:
    """Delete the folder ``path``; Ray's processes may still write for a moment, so more than once."""
    deadline = time.monotonic() + seconds
    while path.exists():
        shutil.rmtree(path, ignore_errors=True)
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)
