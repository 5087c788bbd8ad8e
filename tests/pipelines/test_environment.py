"""What a process may lack: a name for its user, a home, docstrings. Commands run, or say in one line what to change."""

import getpass
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

import pipelines
from tests.pipelines.support import PATIENCE, ROOT


def run(words: list[str], **environment: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if name not in ("HOME", "USER", "LOGNAME")}
    return subprocess.run(
        words, cwd=ROOT, env=kept | environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


@pytest.mark.parametrize("package", ["pipelines", "cluster"])
def test_without_docstrings_it_is_one_line(package: str) -> None:
    done = run([sys.executable, "-m", package, "--help"], PYTHONOPTIMIZE="2")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: PYTHONOPTIMIZE=2")


def test_a_user_without_a_name_or_a_home_gets_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under any number: what Ray and PyTorch ask for as they are imported is there."""

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises((KeyError, OSError)):
        getpass.getuser()
    pipelines._name_user(os.environ)
    assert getpass.getuser() == f"uid{os.getuid()}" and Path.home() == Path("/nonexistent")
    monkeypatch.setenv("HOME", "/mine")
    pipelines._name_user(os.environ)
    assert os.environ["HOME"] == "/mine"
