"""Rows into Parquet shards of one split."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.data.own_files import Split, shard_name
from pipelines.data.shard import Metadata

Progress = Callable[[str], None]
Row = tuple[bytes, int]


class ShardWriter:
    """Writes the rows of one split into as many shards as they need."""

    def __init__(
        self, folder: Path, split: Split, rows: int, per_shard: int, group: int, meta: Metadata, progress: Progress
    ) -> None:
        self.split: Split = split
        self.folder, self.rows, self.meta, self.progress = folder, rows, meta, progress
        self.per_shard, self.group, self.count = per_shard, min(group, per_shard), -(-rows // per_shard)

    def write(self, rows: Iterable[Row]) -> None:
        source = iter(rows)
        schema = self.meta.schema()
        compression = "zstd" if self.meta.encoding == "raw" else "none"  # image files are compressed already
        for index in range(self.count):
            size = min(self.per_shard, self.rows - index * self.per_shard)
            path = self.folder / shard_name(self.split, index, self.count)
            with pq.ParquetWriter(path, schema, compression=compression, use_dictionary=False) as writer:
                for start in range(0, size, self.group):
                    images, labels = zip(*_take(source, min(self.group, size - start)), strict=True)
                    columns = [pa.array(images, pa.binary()), pa.array(labels, pa.int64())]
                    writer.write_table(pa.table(columns, schema=schema), row_group_size=self.group)
            self.progress(f"{self.split}: shard {index + 1} of {self.count} written")


def _take(rows: Iterator[Row], count: int) -> list[Row]:
    return [next(rows) for _ in range(count)]
