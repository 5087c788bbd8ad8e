"""Workers die in the middle of their work: a Ray Train worker of stage 1, a Tune trial of stage 2."""

import os
import signal
from pathlib import Path

import pytest

from tests.chaos.conftest import Tally
from tests.chaos.support import driver, finished, until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]


def test_a_train_worker_and_a_trial_are_killed(reference: Path, tmp_path: Path, tally: Tally) -> None:
    with driver(tmp_path) as run:
        run.wait_for(r"^stage 1: step (48|72)/")  # the checkpoint of step 24 is committed then
        before = finished(tmp_path)
        assert list(before) == ["digits/ancestor"]
        os.kill(run.named("ray::RayTrainWorker")[0], signal.SIGKILL)
        run.wait_for(r"^stage 1: resumed at step [1-9]\d*/240")

        checkpoints = tmp_path / "runs/digits/checkpoints"
        until(lambda: any(checkpoints.glob("*.pt")), "a checkpoint of a trial")
        trained = finished(tmp_path)
        assert list(trained)[:2] == ["digits/ancestor", "digits/templates"]
        for trial in run.named("ray::ImplicitFunc"):
            os.kill(trial, signal.SIGKILL)
        assert run.ended() == 0, run.text()
        assert run.says(r"^d0\d\d-l0\d: resumed at step [1-9]\d*/240")
    tally("1 trial killed", tmp_path, trained, reference=reference)
    tally("2 Ray Train worker killed", tmp_path, before, reference=reference)
