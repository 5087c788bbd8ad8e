"""What the process may use is the container's: in real control groups and processor sets, and in made-up files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.config import machine
from tests.pipelines.support import ROOT

GROUPS = Path("/sys/fs/cgroup")
CODE = "from pipelines.config import machine; print(machine.cpus(), machine.memory_bytes())"


def counted(prefix: str = "") -> tuple[int, int]:
    """What a process of its own counts, which first does ``prefix``."""
    script = f"import os; from pathlib import Path\n{prefix}\n{CODE}"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    cpus, memory = done.stdout.split()
    return int(cpus), int(memory)


def test_the_processor_set_counts() -> None:
    assert counted("os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})")[0] == 1
    assert machine.cpus() <= len(os.sched_getaffinity(0))


@pytest.mark.skipif(
    not os.access(GROUPS / "memory", os.W_OK), reason="control groups (version 1) of this machine are not ours"
)
def test_real_control_groups_count() -> None:
    """Nested: the limit is that of the group around the process's own."""
    made = [GROUPS / kind / f"wave-test-{os.getpid()}" for kind in ("memory", "cpu")]
    inner = [group / "inner" for group in made]
    try:
        for group in inner:
            group.mkdir(parents=True)
        (made[0] / "memory.limit_in_bytes").write_text(str(3 << 30))
        (made[1] / "cpu.cfs_quota_us").write_text("150000")
        joined = "; ".join(f"Path({str(group / 'cgroup.procs')!r}).write_text(str(os.getpid()))" for group in inner)
        assert counted(joined) == (1, 3 << 30)
    finally:
        for group in (*inner, *made):
            group.rmdir()


@pytest.mark.parametrize(
    ("files", "own", "cpus", "memory"),
    [
        ({"cpu.max": "150000 100000", "memory.max": "1000000"}, "0::/", [1.5], [1000000]),
        ({"cpu.max": "max 100000", "memory.max": "max"}, "0::/", [], []),
        (
            {"cpu.max": "max 100000", "a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000", "a/b/memory.max": "7"},
            "0::/a/b", [2.0], [7],
        ),
        (
            {"cpu,cpuacct/cpu.cfs_quota_us": "400000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            "3:cpu,cpuacct:/", [4.0], [],
        ),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "3:cpu:/", [], []),
        ({"memory/docker/x/memory.limit_in_bytes": "500"}, "4:memory:/docker/x", [], [500]),
        ({"memory/memory.limit_in_bytes": "600"}, "4:memory:/docker/x/that/is/outside", [], [600]),
        ({"cpu.max": "nonsense", "memory.max": ""}, "0::/", [], []),
        ({}, "", [], []),
    ],
)  # fmt: skip
def test_limits_in_files_of_either_version(
    files: dict[str, str], own: str, cpus: list[float], memory: list[int], tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text + "\n")
    (tmp_path / "own").write_text(own + "\n")
    assert sorted(set(machine._quotas(tmp_path / "groups", tmp_path / "own"))) == cpus
    assert sorted(set(machine._memory_limits(tmp_path / "groups", tmp_path / "own"))) == memory


def test_nobody_counts_past_it() -> None:
    """The system's own counts are the host's."""
    for package in ("wave", "pipelines", "cluster"):
        for file in (ROOT / package).rglob("*.py"):
            if file.name != "machine.py":
                for name in ("cpu_count", "SC_PHYS_PAGES", "virtual_memory"):
                    assert name not in file.read_text(), file
