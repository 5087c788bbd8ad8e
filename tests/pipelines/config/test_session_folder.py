"""The folder of a Ray session: nobody else enters it, it is short, and what a killed process leaves is swept."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.local import processes
from pipelines.config import session_folder
from tests.other_user import NOBODY, as_other_user, needs_root, reached, written
from tests.pipelines.support import ROOT

HOLD = "from pipelines.config import session_folder as s; print(s.make().path, flush=True); input()"


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short folder of this test's own in the place of /tmp."""
    made = Path(f"/tmp/wt{os.getpid()}")
    made.mkdir(mode=0o700)
    monkeypatch.setenv("RAY_TMPDIR", str(made))
    yield made
    session_folder.remove(made)


def holder() -> tuple["subprocess.Popen[str]", Path]:
    """Another process that has made a folder and holds it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    return process, Path(process.stdout.readline().strip())


def test_made_closed_held_and_removed(parent: Path) -> None:
    old = os.umask(0)
    try:
        folder = session_folder.make()
    finally:
        os.umask(old)
    assert folder.path.parent == parent and folder.path.stat().st_mode & 0o777 == 0o700
    session_folder.sweep(parent)
    assert folder.path.is_dir()
    folder.remove()
    assert list(parent.iterdir()) == []


def test_only_what_an_ended_process_left_is_swept(parent: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    process, folder = holder()
    (folder / "r").mkdir()
    (folder / "r/link").symlink_to(precious)
    (folder / "code").symlink_to(tmp_path)
    kept = [parent / "wave-ray-12345678x", parent / "wave-ray-abc", parent / "wave-data", parent / "wave-ray-mydata00"]
    for other in kept:
        other.mkdir(mode=0o700)
    (kept[-1] / "results.csv").touch()  # of our pattern, but holds what we never put there
    (parent / "wave-ray-aaaaaaaa").symlink_to(tmp_path)
    (parent / "wave-ray-open0000").mkdir()
    (parent / "wave-ray-open0000").chmod(0o755)
    session_folder.make().remove()
    assert folder.is_dir(), "in use"
    process.kill()
    process.wait()
    session_folder.make().remove()
    names = {path.name for path in parent.iterdir()}
    assert names == {path.name for path in kept} | {"wave-ray-aaaaaaaa", "wave-ray-open0000"}
    assert precious.read_text() == "mine" and tmp_path.is_dir()


def test_a_child_that_holds_the_lock_keeps_the_folder(parent: Path) -> None:
    """As the head of `up --local` does after the command has ended."""
    folder = session_folder.make()
    child = subprocess.Popen(["sleep", "60"], pass_fds=[folder.lock])
    os.close(folder.lock)
    session_folder.sweep(parent)
    assert folder.path.is_dir()
    child.kill()
    child.wait()
    session_folder.sweep(parent)
    assert not folder.path.exists()


@needs_root
def test_nothing_of_another_user_is_swept(parent: Path) -> None:
    other = parent / "wave-ray-nobodys0"
    other.mkdir(mode=0o700)
    os.chown(other, NOBODY, NOBODY)
    session_folder.make().remove()
    assert other.is_dir()


def test_where_it_cannot_be_is_one_line(parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent.chmod(0o777)  # others could rename what is made there
    for wrong in (str(parent), str(parent / "none"), "/tmp/" + "x" * 100):
        monkeypatch.setenv("RAY_TMPDIR", wrong)
        with pytest.raises(OSError, match=rf"RAY_TMPDIR={wrong} .*; unset it") as found:
            session_folder.make()
        assert "\n" not in str(found.value)
    parent.chmod(0o1777)
    monkeypatch.setenv("RAY_TMPDIR", str(parent))
    session_folder.make().remove()


def test_tmpdir_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", "/tmp/" + "x" * 100)
    folder = session_folder.make()
    assert len(str(folder.path)) < 25
    folder.remove()


@pytest.mark.parametrize("blank", ["my checkout", "Büro #1 100%", "a'b", 'a"b', "a$HOME", "a;b"])
def test_an_interpreter_that_a_shell_would_split_goes_by_a_link(parent: Path, tmp_path: Path, blank: str) -> None:
    prefix = tmp_path / blank
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin/python").write_text("#!/bin/sh\necho right\n")
    (prefix / "bin/python").chmod(0o755)
    folder = session_folder.make()
    command = folder.interpreter(f"{prefix}/bin/python", str(prefix))
    assert subprocess.run(["bash", "-c", f"exec {command}"], capture_output=True, text=True).stdout == "right\n"
    with pytest.raises(OSError, match="more than one word to a shell"):
        folder.interpreter(f"{prefix}/bin/python", "/usr")
    assert folder.interpreter("/usr/bin/python3", "/usr") == "/usr/bin/python3"
    folder.remove()


RAY = """
import sys, ray, pipelines
from pipelines.config.cluster import Cluster
from pipelines.runtime.ray_session import session
def where():
    import sys, wave
    return wave.__file__
with session(Cluster(num_cpus=1)):
    print(ray.get(ray.remote(num_cpus=1)(where).remote()), flush=True)
    sys.stdin.readline()
"""


@pytest.mark.slow
def test_another_user_reaches_nothing_of_a_run(tmp_path: Path) -> None:
    """Code, logs, sockets and shared memory of a real session, under a TMPDIR as long as a batch system's and at a
    path with blanks; killed, it leaves nothing that the next one would not remove."""
    long = tmp_path / ("t" * 98)
    long.mkdir()
    (tmp_path / "My Büro #1 100%").mkdir()
    python = tmp_path / "My Büro #1 100%/venv"
    python.symlink_to(sys.prefix)
    drop = ("RAY_TMPDIR", "RAY_ADDRESS")
    environment = {k: v for k, v in os.environ.items() if k not in drop} | {
        "TMPDIR": str(long),
        "PYTHONPATH": str(ROOT),
    }
    words = [str(python / Path(sys.executable).relative_to(sys.prefix)), "-c", RAY]
    process = subprocess.Popen(
        words, env=environment, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    since = processes.started(process.pid)
    assert since and process.stdout and process.stdin
    code = Path(process.stdout.readline().strip())
    folder = Path(*code.parts[:3])
    assert folder.name.startswith(session_folder.PREFIX), code
    family = {p.pid: p.started for p in processes.family("", {process.pid: since})}
    assert len(family) > 3
    if os.geteuid() == 0:
        inside = {folder, *folder.rglob("*")}
        assert {code, folder / "r"} < inside
        assert reached(inside | written(family)) == []
        environ = [f"/proc/{pid}/environ" for pid in family]
        assert as_other_user(lambda: [name for name in environ if os.access(name, os.R_OK)]) == []
    process.send_signal(signal.SIGKILL)
    process.wait()
    processes.end("", family, patience=0.2)
    assert folder.is_dir()
    session_folder.sweep(folder.parent)
    assert not folder.exists()
