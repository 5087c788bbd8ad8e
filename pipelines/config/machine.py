"""What of this machine the process may use: processors and memory, of the container if it runs in one.

The system's own counts are the host's. Limits of a container are those of its control group and of every group around
it (version 1 and 2), and the set of processors that it may run on. Ray counts the quota, but not that set, and sees
only the outermost group: so a Ray that we start is told what is counted here.
"""

import os
from collections.abc import Iterator
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def cpus() -> int:
    """Whole processors, at least one: the least of the machine's, the processor set's and the quota's."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([count, *_quotas(_GROUPS, _OWN)])))


def memory_bytes() -> int:
    """Bytes of memory: the least of the machine's and the control groups'."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *_memory_limits(_GROUPS, _OWN)])


def _quotas(groups: Path, own: Path) -> Iterator[float]:
    for folder in _folders(groups, own, "cpu"):
        quota, period = [*_words(folder / "cpu.max"), "", ""][:2]  # version 2: "150000 100000" or "max 100000"
        if not quota:
            quota, period = (" ".join(_words(folder / f"cpu.cfs_{name}_us")) for name in ("quota", "period"))
        if quota.isdecimal() and period.isdecimal() and int(period):  # version 1 says -1 for none
            yield int(quota) / int(period)


def _memory_limits(groups: Path, own: Path) -> Iterator[int]:
    for folder in _folders(groups, own, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            yield from (int(word) for word in _words(folder / name) if word.isdecimal() and int(word))


def _folders(groups: Path, own: Path, controller: str) -> Iterator[Path]:
    """The groups whose limits hold for this process, from its own outwards; a container may see only the outermost."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = []
    for line in [*lines, f"0:{controller}:/", "0::/"]:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        roots = [groups / controllers, groups / controller] if controllers else [groups, groups / "unified"]
        for root in roots:
            inner = root / path.lstrip("/")
            yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(root))


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except (OSError, UnicodeDecodeError):
        return []
