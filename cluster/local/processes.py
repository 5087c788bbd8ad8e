"""Which processes belong to something that we started, and how to end exactly those.

A process is ours when it descends from the process that we started, or when it carries our mark: an environment
variable with a random value, which every child inherits. The mark finds what a dying parent left behind (a Ray worker
whose raylet was killed has process 1 as its parent). It can be read on Linux only; elsewhere descent alone counts.
"""

import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MARK = "WAVE_CLUSTER_MARK"
_PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """One line of the process table; `started` tells a reused pid from the process that had it first."""

    pid: int
    parent: int
    started: str


def table() -> dict[int, Process]:
    """Every process of this machine that has not ended; a zombie has."""
    return _from_proc() if (_PROC / "self/stat").exists() else _from_ps()


def _from_proc() -> dict[int, Process]:
    found = {}
    for folder in _PROC.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            # "pid (command) state ppid ...": the command may hold spaces and parentheses, so split behind its last one.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # ended while we looked
            continue
        if fields[0] not in "ZX":
            pid = int(folder.name)
            found[pid] = Process(pid, int(fields[1]), fields[19])
    return found


def _from_ps() -> dict[int, Process]:
    listing = subprocess.run(["ps", "-axo", "pid=,ppid=,stat=,lstart="], capture_output=True, text=True, check=True)
    found = {}
    for line in listing.stdout.splitlines():
        pid, parent, state, started = line.split(maxsplit=3)
        if not state.startswith("Z"):
            found[int(pid)] = Process(int(pid), int(parent), started)
    return found


def started(pid: int) -> str | None:
    """The start mark of `pid`, None when there is no such process."""
    process = table().get(pid)
    return process.started if process else None


def _marked(pid: int, mark: str) -> bool:
    try:
        return f"{MARK}={mark}".encode() in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def family(mark: str, roots: dict[int, str]) -> set[Process]:
    """Every living process that descends from `roots` (pid -> started) or carries `mark`, but never this one."""
    everyone = table()
    children: dict[int, list[int]] = {}
    for process in everyone.values():
        children.setdefault(process.parent, []).append(process.pid)
    pending = [pid for pid, since in roots.items() if pid in everyone and everyone[pid].started == since]
    pending += [pid for pid in everyone if mark and _marked(pid, mark)]
    pids: set[int] = set()
    while pending:
        pid = pending.pop()
        if pid not in pids:
            pids.add(pid)
            pending += children.get(pid, [])
    return {everyone[pid] for pid in pids - {os.getpid()}}


def _send(process: Process, number: int) -> None:
    if started(process.pid) == process.started:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)


def end(mark: str, roots: dict[int, str], patience: float = 10.0) -> set[Process]:
    """End the family of `roots`: ask the roots, then ask everyone, then kill, until none is left.

    `patience` is in seconds, for the asking. Returns those still alive at the end: normally none.
    """
    known = family(mark, roots)
    for targets, number, seconds in (
        ([p for p in known if p.pid in roots], signal.SIGTERM, patience / 2),
        (None, signal.SIGTERM, patience / 2),
        (None, signal.SIGKILL, 10.0),
    ):
        deadline = time.monotonic() + seconds
        first = True
        while known and time.monotonic() < deadline:
            # SIGKILL goes out again each round: what a dying parent started in between must end as well.
            for process in (known if targets is None else targets) if first or number == signal.SIGKILL else ():
                _send(process, number)
            first = False
            time.sleep(0.1)
            everyone = table()
            known = {p for p in known if everyone.get(p.pid) == p} | family(mark, roots)
            known = {p for p in known if p.pid in everyone and everyone[p.pid].started == p.started}
    return known
