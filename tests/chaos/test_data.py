"""A Parquet shard is truncated, or replaced by another valid one, while a run is under way."""

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.chaos.conftest import Tally
from tests.chaos.support import driver, finished, until_stage_2

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]
SHARD = "data/digits/train-00000-of-00001.parquet"


def truncated(shard: Path) -> None:
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size // 2)


def replaced(shard: Path) -> None:
    """The same images with other labels, put in place as a converter would."""
    table = pq.read_table(shard)
    labels = pa.array(np.roll(table["label"].to_numpy(), 1))
    pq.write_table(table.set_column(1, table.schema.field("label"), labels), shard.with_suffix(".new"))
    os.replace(shard.with_suffix(".new"), shard)


@pytest.mark.parametrize("spoil", [truncated, replaced])
def test_during_stage_1(reference: Path, tmp_path: Path, spoil, tally: Tally) -> None:
    until_stage_2(reference, tmp_path)
    (tmp_path / "runs/digits/templates.json").unlink()
    shard = tmp_path / SHARD
    kept = shutil.copy2(shard, tmp_path / "kept.parquet")
    with driver(tmp_path, "distil.max_failures=0") as run:
        run.wait_for(r"^stage 1: distilling")
        spoil(shard)
        assert run.ended() == 2, run.text()
        assert len(run.errors()) == 1
        assert SHARD in run.errors()[0] and "changed" in run.errors()[0], run.text()
        assert not run.says("^stage 2: .* done")
    before = finished(tmp_path)
    os.replace(kept, shard)
    with driver(tmp_path) as run:
        assert run.ended() == 0, run.text()
    tally(f"10 shard {spoil.__name__}", tmp_path, before, reference=reference)
