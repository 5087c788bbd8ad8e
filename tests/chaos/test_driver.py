"""The driver is killed at ten random moments of a run; the same command goes on each time."""

import random
import re
import signal
import time
from pathlib import Path

import pytest

from tests.chaos.conftest import Tally
from tests.chaos.support import Driver, driver, finished

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]
KILLS = 10


def steps(text: str) -> set[str]:
    """What a run has said, without the numbers that differ from one run to the next."""
    return {re.split(r"[,;]", line)[0] for line in text.splitlines() if re.match(r"[\w -]+: ", line)}


def test_killed_at_ten_random_moments(reference: Path, tmp_path: Path, tally: Tally) -> None:
    """A moment is a random one of the things that a whole run says, and up to two seconds; in order, so that the
    run gets on. A run that has come to its end is killed there: every kill hits a living driver."""
    rng = random.Random(0)
    whole = steps(next(reference.glob("*.log")).read_text())
    moments = sorted(rng.sample(range(len(whole)), KILLS))
    said: set[str] = set()
    before: dict[str, int] = {}

    def has_said(run: Driver) -> int:
        return len(whole & (said | steps(run.text())))

    for moment in moments:
        with driver(tmp_path) as run:
            while has_said(run) <= moment and run.process.poll() is None and not run.says("^results: "):
                time.sleep(0.05)
            wait = time.monotonic() + rng.uniform(0, 2)
            while time.monotonic() < wait and not run.says("^results: "):
                time.sleep(0.02)
            run.kill()
            assert run.ended() == -signal.SIGKILL, run.text()
            said |= steps(run.text())
        now = finished(tmp_path)
        assert before.items() <= now.items()
        before = now
    with driver(tmp_path) as last:
        assert last.ended() == 0, last.text()
    tally("5 driver killed", tmp_path, before, KILLS, reference)
