"""SIGTERM and Ctrl-C: exit code 130, one line, what is done is kept; and a second run of the same name is refused."""

import os
import signal
from pathlib import Path

import pytest

from tests.chaos.conftest import Tally
from tests.chaos.support import driver, finished, until, until_stage_2

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(2400)]
WHEN = (
    (r"^data: ", signal.SIGTERM),
    (r"^stage 1: step (48|72)/", signal.SIGINT),
    (r"^stage 1: resumed at step [1-9]", signal.SIGTERM),
    (r"^stage 2: 4 sizes", signal.SIGINT),
    (r"^d0\d\d-l0\d: step", signal.SIGTERM),
)


def test_two_runs_of_the_same_name_at_once(reference: Path, tmp_path: Path, tally: Tally) -> None:
    until_stage_2(reference, tmp_path)
    before = finished(tmp_path)
    with driver(tmp_path) as one, driver(tmp_path) as other:
        until(lambda: one.process.poll() is not None or other.process.poll() is not None, "one of the two to end")
        refused, whole = (one, other) if one.process.poll() is not None else (other, one)
        assert refused.ended() == 2, refused.text()
        assert len(refused.errors()) == 1
        assert f"another run (process {whole.process.pid}) is writing to" in refused.errors()[0]
        assert whole.ended() == 0, whole.text()
    tally("12 second run of the same name", tmp_path, before, reference=reference)


def test_one_name_in_two_folders_at_once(reference: Path, tmp_path: Path, tally: Tally) -> None:
    """The registry is the same, so a second run would take the first one's aliases."""
    until_stage_2(reference, tmp_path)
    before = finished(tmp_path)
    with driver(tmp_path) as one:
        one.wait_for(r"^stage 2: 4 sizes")
        one.kill(signal.SIGSTOP)  # or it may have ended before the other one asks for the name
        with driver(tmp_path, "output=runs/other") as other:
            assert other.ended() == 2, other.text()
            assert f"another run (process {one.process.pid}) registers digits in" in other.errors()[0]
        one.kill(signal.SIGCONT)
        assert one.ended() == 0, one.text()
    tally("12 one name in two folders", tmp_path, before, reference=reference)


def test_interrupted_five_times(reference: Path, tmp_path: Path, tally: Tally) -> None:
    before: dict[str, int] = {}
    for pattern, number in WHEN:
        with driver(tmp_path) as run:
            run.wait_for(pattern)
            if number == signal.SIGINT:
                os.killpg(run.process.pid, number)  # as a terminal does: everything that the run started gets it
            else:
                run.kill(number)
            assert run.ended() == 130, (pattern, run.text())
            assert run.says(r"^interrupted; the same command again continues$")
        now = finished(tmp_path)
        assert before.items() <= now.items()
        before = now
    with driver(tmp_path) as last:
        assert last.ended() == 0, last.text()
    tally("13 SIGTERM and Ctrl-C", tmp_path, before, len(WHEN), reference)
