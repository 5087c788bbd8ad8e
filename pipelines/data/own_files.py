"""The files of a data set as this program writes it: their names, whether all are there, and what their footers say."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.data.shard import Metadata, Shard, check_labels, unreadable
from pipelines.data.shard import outline as digest_of
from wave.errors import WaveError

Split = Literal["train", "test", "held_out"]
SPLITS: tuple[Split, ...] = get_args(Split)
"""``held_out``: training images that nothing trains on, to choose settings by; a data set may have none."""
NAME = re.compile(r"(train|test|held_out)-(\d{5,})-of-(\d{5,})\.parquet")


def shard_name(split: Split, index: int, count: int) -> str:
    """``train-00000-of-00003.parquet``."""
    return f"{split}-{index:05d}-of-{count:05d}.parquet"


def open_own(path: Path, names: Sequence[str]) -> tuple[Metadata, dict[Split, tuple[Shard, ...]]]:
    """Metadata and shards of a folder that holds ``names``; raises :class:`WaveError` that names the file."""
    files = {split: _complete(path, split, names) for split in SPLITS}
    meta: Metadata | None = None
    shards: dict[Split, tuple[Shard, ...]] = {}
    for split in SPLITS:
        opened = []
        for file in files[split]:
            shard, found = _open_shard(file)
            if meta is not None and found != meta:
                key = next(k for k in vars(found) if getattr(meta, k) != getattr(found, k))
                has, other = (_brief(getattr(m, key)) for m in (found, meta))
                text = f"{key} {has}, but {files['train'][0].name} has {other}"
                raise WaveError(f"{file}: has {text}; all shards come from one conversion")
            meta = found
            opened.append(shard)
        shards[split] = tuple(opened)
        if split != "held_out" and not sum(shard.rows for shard in opened):
            raise WaveError(f"{files[split][0]}: the {split} split has no rows")
    assert meta is not None  # the training split has at least one shard
    return meta, shards


def _complete(path: Path, split: Split, names: Sequence[str]) -> list[Path]:
    """The shards of a split, in order, none missing."""
    matches = [m for name in names if (m := NAME.fullmatch(name)) and m[1] == split]
    if not matches and split == "held_out":
        return []
    if not matches:
        raise WaveError(f"{path}: has no {split}-*.parquet; make the data set with `python -m pipelines data`")
    counts = sorted({int(m[3]) for m in matches})
    if len(counts) > 1:
        raise WaveError(
            f"{path}: mixes {split} shards of {' and '.join(map(str, counts))}; keep those of one conversion"
        )
    wanted = [shard_name(split, i, counts[0]) for i in range(counts[0])]
    present = {m[0] for m in matches}
    if absent := [name for name in wanted if name not in present]:
        raise WaveError(f"{path}: lacks {absent[0]} ({len(absent)} of {counts[0]} {split} shards); convert it again")
    return [path / name for name in wanted]


def _open_shard(path: Path) -> tuple[Shard, Metadata]:
    try:
        with pq.ParquetFile(path) as file:
            footer, meta = file.metadata, Metadata.read(file.schema_arrow, path)
            groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
            shard = Shard(path, tuple(group.num_rows for group in groups), digest_of(path))
            column = footer.schema.names.index("label")
            ranges = [group.column(column).statistics for group in groups]
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, error) from None
    if all(r is not None and r.has_min_max for r in ranges):
        bounds = np.array([[r.min, r.max] for r in ranges], np.int64).reshape(-1)
        if len(bounds) and (bounds.min() < 0 or bounds.max() >= len(meta.classes)):
            check_labels(shard.labels(), len(meta.classes), path)
    else:
        check_labels(shard.labels(), len(meta.classes), path)
    return shard, meta


def _brief(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."
