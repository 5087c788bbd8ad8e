"""What a second real user of this machine can do to files and sockets of ours; such a test needs root to become one."""

import json
import os
import socket
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def as_other_user(function: Callable[[], Any]) -> Any:
    """What ``function`` returns, as JSON carries it, in a process of user and group 65534."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        try:
            os.close(reader)
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            answer = json.dumps(function()).encode()
            while answer:
                answer = answer[os.write(writer, answer) :]
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answers:
        said = answers.read()
    os.waitpid(child, 0)
    return json.loads(said)


def reached(paths: Iterable[Path]) -> list[str]:
    """What the other user manages: to list a folder or make a file in it, read, write, replace, or connect."""
    given = sorted(set(map(str, paths)))
    return as_other_user(lambda: [f"{verb} {path}" for path in given for verb, act in ACTS if _succeeds(act, path)])


def _succeeds(act: Callable[[str], object], path: str) -> bool:
    try:
        act(path)
    except OSError:
        return False
    return True


def _make(path: str) -> None:
    os.close(os.open(f"{path}/intruder", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    os.unlink(f"{path}/intruder")


def _open(path: str, flags: int) -> None:
    if stat.S_ISREG(os.stat(path).st_mode):
        os.close(os.open(path, flags))
    else:
        raise FileNotFoundError


def _replace(path: str) -> None:
    os.rename(path, f"{path}.taken")
    os.rename(f"{path}.taken", path)


def _connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as door:
        door.connect(path)


ACTS: tuple[tuple[str, Callable[[str], object]], ...] = (
    ("list", os.listdir),
    ("make a file in", _make),
    ("read", lambda path: _open(path, os.O_RDONLY)),
    ("write", lambda path: _open(path, os.O_WRONLY)),
    ("replace", _replace),
    ("connect to", _connect),
)


def written(pids: Iterable[int]) -> set[Path]:
    """The files, sockets and memory that these processes have open for writing, by their paths."""
    found: set[Path] = set()
    for pid in pids:
        try:
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                flags = Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text().split("flags:")[1].split()[0]
                path = Path(os.readlink(entry))
                if int(flags, 8) & os.O_ACCMODE and path.is_file() and path.is_absolute():
                    found.add(path)
        except OSError:  # it has ended, or closed it
            continue
    return found
