"""SIGTERM and Ctrl-C: exit code 130, one line, what is done is kept; and a second run of the same name is refused."""

import signal
import time
from pathlib import Path

import pytest

from tests.chaos.conftest import Tally
from tests.chaos.support import driver, finished

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(2400)]
WHEN = (
    (r"^data: ", signal.SIGTERM),
    (r"^stage 1: step (48|72)/", signal.SIGINT),
    (r"^stage 1: resumed at step [1-9]", signal.SIGTERM),
    (r"^stage 2: 4 sizes", signal.SIGINT),
    (r"^d0\d\d-l0\d: step", signal.SIGTERM),
)


def test_interrupted_five_times_and_a_second_run_refused(reference: Path, tmp_path: Path, tally: Tally) -> None:
    before: dict[str, int] = {}
    for pattern, number in WHEN:
        with driver(tmp_path) as run:
            run.wait_for(pattern)
            if number == signal.SIGINT and not before.get("digits/templates"):
                with driver(tmp_path) as second:
                    began = time.monotonic()
                    assert second.ended() == 2
                    assert time.monotonic() - began < 120
                    assert len(second.errors()) == 1
                    assert f"another run (process {run.process.pid}) is writing to" in second.errors()[0]
            run.kill(number)
            assert run.ended() == 130, (pattern, run.text())
            assert run.says(r"^interrupted; the same command again continues$")
        now = finished(tmp_path)
        assert before.items() <= now.items()
        before = now
    with driver(tmp_path) as last:
        assert last.ended() == 0, last.text()
    tally("12 second run of the same name", tmp_path, before, reference=reference)
    tally("13 SIGTERM and Ctrl-C", tmp_path, before, len(WHEN), reference)
