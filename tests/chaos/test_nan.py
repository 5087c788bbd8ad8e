"""A loss that is NaN or infinite, in one size and in stage 1: that one fails with a line, at once; the rest is kept."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.chaos.conftest import Tally
from tests.chaos.support import driver, finished, until, until_stage_2

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]
BROKEN = "d048-l03"


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=["NaN", "infinite"])
def test_in_one_size(reference: Path, tmp_path: Path, tally: Tally, value: float, request: Any) -> None:
    """A trial's own state is NaN or infinite: it fails, forgets that state, and comes out as if undisturbed."""
    until_stage_2(reference, tmp_path)
    state = tmp_path / f"runs/digits/checkpoints/{BROKEN}.pt"
    with driver(tmp_path) as run:
        until(state.is_file, "a checkpoint")
        run.kill()
        run.ended()
    saved = torch.load(state, weights_only=True)
    for tensor in saved["trainer"]["model"].values():
        tensor.fill_(value)
    torch.save(saved, state)
    before = finished(tmp_path)
    with driver(tmp_path, "initialise.max_failures=0") as run:
        assert run.ended() == 2, run.text()
        assert len(run.errors()) == 1 and f"({BROKEN})" in run.errors()[0] and "1 of 4" in run.errors()[0]
        assert run.says(rf"^{BROKEN} failed: the loss is (nan|inf) at step \d+; lower lr")
    assert not state.exists()
    before |= finished(tmp_path)
    assert len(before) == 5
    with driver(tmp_path) as run:
        assert run.ended() == 0, run.text()
    tally(f"9 {request.node.callspec.id} in one size", tmp_path, before, reference=reference)


def test_nan_in_stage_1(reference: Path, tmp_path: Path, tally: Tally) -> None:
    """What stage 1 saved is NaN: it is said, with what to remove, and then comes out as if undisturbed."""
    with driver(tmp_path) as run:
        run.wait_for(r"^stage 1: step (48|72)/")  # the checkpoint of step 24 is committed then
        run.kill()
        run.ended()
    assert not (tmp_path / "runs/digits/templates.json").exists()
    for file in tmp_path.glob("runs/digits/ray/templates-*/checkpoint_*/state.pt"):
        saved = torch.load(file, weights_only=True)
        for tensor in saved["model"].values():
            tensor.fill_(float("nan"))
        torch.save(saved, file)
    with driver(tmp_path) as run:
        assert run.ended() == 2, run.text()
        (error,) = run.errors()
    found = re.search(r"state\.pt: tensor \S+ holds NaN or infinite values; remove (\S+) and run again", error)
    assert found, error
    shutil.rmtree(found[1])
    with driver(tmp_path) as run:
        assert run.ended() == 0, run.text()
    tally("9 NaN in stage 1", tmp_path, {}, reference=reference)


def test_infinite_loss_in_stage_1(reference: Path, tmp_path: Path, tally: Tally) -> None:
    until_stage_2(reference, tmp_path)
    before = finished(tmp_path)
    with driver(tmp_path, "distil.recipe.lr=1e30", "distil.recipe.clip_grad=0") as run:
        assert run.ended() == 2, run.text()
        assert len(run.errors()) == 1
        assert run.says(r"^error: stage 1: the loss is (nan|inf) at step \d+; lower lr=1e\+30")
        assert not run.says(r"^stage 2")
    assert finished(tmp_path) == before
    with driver(tmp_path) as run:  # with the rate that works again
        assert run.ended() == 0, run.text()
    tally("9 infinite loss in stage 1", tmp_path, before, reference=reference)
