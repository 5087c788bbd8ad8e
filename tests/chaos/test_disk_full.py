"""The disk is full (a small tmpfs) while a trial's checkpoint, a model, or a checkpoint of stage 1 is written."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.conftest import Tally
from tests.chaos.support import driver, finished, until_stage_2

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs needs root"),
]


@contextlib.contextmanager
def small(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def grow(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=256m", str(folder)], check=True)


@pytest.mark.parametrize(("part", "size"), [("checkpoints", "100k"), ("models", "600k")])
def test_in_stage_2(reference: Path, tmp_path: Path, part: str, size: str, tally: Tally) -> None:
    """A checkpoint takes 300 kB and more, a model 100 to 350 kB: at least one of the sizes has no room."""
    until_stage_2(reference, tmp_path)
    folder = tmp_path / "runs/digits" / part
    with small(folder, size):
        with driver(tmp_path, "initialise.max_failures=0") as run:
            assert run.ended() == 2, run.text()
            assert len(run.errors()) == 1 and "sizes failed" in run.errors()[0]
            failures = " ".join(run.text().split()).split(" failed: ")[1:]  # the lines are wrapped
            assert failures and all(part and "No space left" in part for part in failures), run.text()
        assert not [p for p in folder.iterdir() if p.name.startswith(".") or p.suffix == ".tmp"]
        before = finished(tmp_path)
        grow(folder)
        with driver(tmp_path) as run:
            assert run.ended() == 0, run.text()
        tally(f"8 disk full, {part}", tmp_path, before, reference=reference)


def test_in_stage_1(reference: Path, tmp_path: Path, tally: Tally) -> None:
    until_stage_2(reference, tmp_path)
    (tmp_path / "runs/digits/templates.json").unlink()
    folder = tmp_path / "runs/digits/ray"
    with small(folder, "300k"):
        with driver(tmp_path, "distil.max_failures=0") as run:
            assert run.ended() == 2, run.text()
            assert len(run.errors()) == 1 and "No space left" in run.errors()[0], run.text()
        before = finished(tmp_path)
        grow(folder)
        with driver(tmp_path) as run:
            assert run.ended() == 0, run.text()
        tally("8 disk full, stage 1", tmp_path, before, reference=reference)
