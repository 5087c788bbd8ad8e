"""SIGHUP ends a run as SIGTERM does, unless it is ignored; a terminal that is gone is no further error."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipelines.support import PATIENCE, ROOT

WAITING = """
import time, click
from pipelines.cli import main as module

@module.main.command()
def wait():
    try:
        click.echo("waiting")
        for _ in range(600):
            time.sleep(0.1)
    finally:
        open("ended", "w").close()
        click.echo("tidied up")

module.main(["wait"])
"""


def started(folder: Path, ignored: bool, **streams: int) -> "subprocess.Popen[str]":
    how = signal.SIG_IGN if ignored else signal.SIG_DFL
    return subprocess.Popen(
        [sys.executable, "-c", WAITING], cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, how) and None, **streams,
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_is_an_interrupt(tmp_path: Path, number: signal.Signals):
    process = started(tmp_path, ignored=False, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == "waiting\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err.strip()) == (130, "interrupted; the same command again continues")
    assert out == "tidied up\n" and (tmp_path / "ended").exists()


def test_a_run_under_nohup_goes_on(tmp_path: Path):
    process = started(tmp_path, ignored=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 130


def test_a_terminal_that_is_closed(tmp_path: Path):
    controller, terminal = pty.openpty()
    process = started(tmp_path, ignored=False, stdout=terminal, stderr=terminal)
    os.close(terminal)
    read = b""
    while b"waiting" not in read:
        read += os.read(controller, 100)
    os.close(controller)  # from now on writing there is an error
    process.send_signal(signal.SIGHUP)
    assert process.wait(PATIENCE) == 130
    assert (tmp_path / "ended").exists()
