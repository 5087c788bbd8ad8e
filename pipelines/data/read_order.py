"""Which rows a part of a streamed set reads, and when: arithmetic alone, nothing is read.

Ranks times loader processes are the *parts*. In each epoch the row groups are shuffled and laid end to end, and part p
of P reads rows [p*n/P, (p+1)*n/P) of them. A part's epochs follow one another without end, so all ranks have the same
number of steps, and each image comes once an epoch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wave.errors import WaveError

from pipelines.data.dataset import Dataset, Split
from pipelines.data.shard import Shard


@dataclass(frozen=True)
class Rows:
    """Rows ``start`` to ``stop`` of one row group."""

    shard: Shard
    group: int
    start: int
    stop: int

    def where(self, row: int) -> str:
        """The place of a row of the row group, for a message."""
        return f"{self.shard.path}: row {sum(self.shard.groups[: self.group]) + row}"




def part_rows(dataset: Dataset, split: Split, part: int, parts: int) -> int:
    """Rows of a part, the same in every epoch."""
    total = dataset.num_rows(split)
    return (part + 1) * total // parts - part * total // parts


def plan(dataset: Dataset, split: Split, part: int, parts: int, seed: int | None, epoch: int) -> list[Rows]:
    """What a part reads in an epoch, in order; ``seed`` None keeps the order of the files."""
    units = [(shard, group) for shard in dataset.shards[split] for group in range(len(shard.groups))]
    if seed is not None:
        units = [units[i] for i in np.random.default_rng([seed, epoch]).permutation(len(units))]
    total = dataset.num_rows(split)
    low, high = part * total // parts, (part + 1) * total // parts
    rows: list[Rows] = []
    at = 0
    for shard, group in units:
        size = shard.groups[group]
        start, stop = max(low - at, 0), min(high - at, size)
        if start < stop:
            rows.append(Rows(shard, group, start, stop))
        at += size
    return rows


def pools(rows: list[Rows], least: int) -> Iterator[list[Rows]]:
    """Consecutive pieces of together at least ``least`` rows: what the shuffle buffer holds."""
    pool: list[Rows] = []
    held = 0
    for piece in rows:
        pool.append(piece)
        held += piece.stop - piece.start
        if held >= least:
            yield pool
            pool, held = [], 0
    if pool:
        yield pool
