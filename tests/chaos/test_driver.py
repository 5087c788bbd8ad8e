"""The driver is killed at ten random moments of a run; the same command goes on each time."""

import random
import signal
import time
from pathlib import Path

import pytest

from tests.chaos.conftest import Tally
from tests.chaos.support import driver, finished

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]
MOMENTS = (
    r"^data: ",
    r"^ancestor: (training|step)",
    r"^ancestor: step",
    r"^(ancestor: \d+ parameters|stage 1: )",
    r"^stage 1: (distilling|step|resumed)",
    r"^stage 1: (step|resumed)",
    r"^stage 1: (step|resumed|\d+ template)",
    r"^stage 2: 4 sizes",
    r"^stage 2: .* done",
    r"^stage 2: (.* done|4 sizes, [1-4] already)",
)
"""What a run says in each part of it, in order: after each of these, at a random time, the driver dies."""


def test_killed_at_ten_random_moments(reference: Path, tmp_path: Path, tally: Tally) -> None:
    """Each moment is a line of the process that is killed, and up to 1.5 s more, so that all parts of a run are hit and
    the run gets on. A run that has come to its end is killed there: every kill hits a living driver."""
    rng = random.Random(0)
    before: dict[str, int] = {}
    for moment in MOMENTS:
        with driver(tmp_path) as run:
            run.wait_for(moment)
            wait = time.monotonic() + rng.uniform(0, 1.5)
            while time.monotonic() < wait and not run.says("^results: "):
                time.sleep(0.02)
            run.kill()
            assert run.ended() == -signal.SIGKILL, run.text()
        now = finished(tmp_path)
        assert before.items() <= now.items()
        before = now
    with driver(tmp_path) as last:
        assert last.ended() == 0, last.text()
    tally("5 driver killed", tmp_path, before, len(MOMENTS), reference)
