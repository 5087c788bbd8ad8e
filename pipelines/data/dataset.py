"""Data sets on disk: folders of Parquet shards, opened and checked, read whole or as a seeded subset."""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.config.machine import memory_bytes
from pipelines.data.image_file import decode
from wave.errors import WaveError

from pipelines.data.checksums import digests
from pipelines.data.transforms import CROP, eval_pixels
from pipelines.data.shard import Encoding, Metadata, Shard, changed, check_labels, raw_pixels, unreadable
from pipelines.data.shard import outline as digest_of

Split = Literal["train", "test", "held_out"]
SPLITS: tuple[Split, ...] = get_args(Split)
"""``held_out``: training images that nothing trains on, to choose settings by; a data set may have none."""
_NAME = re.compile(r"(train|test|held_out)-(\d{5,})-of-(\d{5,})\.parquet")


def shard_name(split: Split, index: int, count: int) -> str:
    """``train-00000-of-00003.parquet``."""
    return f"{split}-{index:05d}-of-{count:05d}.parquet"


def stratified(labels: NDArray[np.int64], limit: int, seed: int) -> NDArray[np.int64]:
    """Sorted indices of ``limit`` rows, drawn by seed, each class in its share (rounded by greatest remainder)."""
    if limit < 1:
        raise WaveError(f"a subset of {limit} images is empty; give at least 1")
    if limit >= len(labels):
        return np.arange(len(labels))
    rng = np.random.default_rng([seed, 0x5B5E7])
    order = rng.permutation(len(labels))
    counts = np.bincount(labels)
    exact = counts * limit / len(labels)
    quota = np.floor(exact).astype(np.int64)
    ranking = np.lexsort((rng.random(len(counts)), quota - exact))
    quota[ranking[: limit - quota.sum()]] += 1
    grouped = order[np.argsort(labels[order], kind="stable")]
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return np.sort(np.concatenate([grouped[s : s + q] for s, q in zip(starts, quota, strict=True)]))


def choose_held_out(labels: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """Which ``count`` training images to hold out, always the same; raises :class:`WaveError` unless some stay."""
    if not 0 < count < len(labels):
        raise WaveError(f"held_out={count} of {len(labels)} training images leaves none; hold out {len(labels) // 10}")
    held = np.zeros(len(labels), bool)
    held[stratified(labels, count, seed=0)] = True
    return held


@dataclass(frozen=True)
class Dataset:
    """An opened data set; picklable, holds no open file. Made by :func:`open_dataset`."""

    path: Path
    meta: Metadata
    shards: Mapping[Split, tuple[Shard, ...]]

    @property
    def encoding(self) -> Encoding:
        return self.meta.encoding

    @property
    def classes(self) -> tuple[str, ...]:
        return self.meta.classes

    @property
    def mean(self) -> tuple[float, ...]:
        """A number a channel, images in 0..1."""
        return self.meta.mean

    @property
    def std(self) -> tuple[float, ...]:
        return self.meta.std

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) as the model sees it."""
        return self.meta.shape

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How evaluation makes the model's pixels of an image, in timm's terms; empty for raw ones, which it reads as
        they are."""
        if self.encoding == "raw":
            return {}
        return {"crop_pct": CROP, "crop_mode": "center", "interpolation": "bicubic"}

    def at(self, side: int) -> "Dataset":
        """The same images as a model of ``side`` pixels sees them; raw ones have the size that they have."""
        if self.encoding == "raw" or self.shape[1:] == (side, side):
            return self
        return replace(self, meta=replace(self.meta, shape=(self.shape[0], side, side)))

    def num_rows(self, split: Split) -> int:
        return sum(shard.rows for shard in self.shards[split])

    def num_bytes(self, split: Split) -> int:
        """Memory that :meth:`arrays` takes for all images of a split."""
        return self.num_rows(split) * int(np.prod(self.shape))

    @cached_property
    def digest(self) -> str:
        """sha256 over names and contents of all shards, in hexadecimal. See :mod:`pipelines.data.checksums`."""
        whole = hashlib.sha256()
        paths = [shard.path for split in SPLITS for shard in self.shards[split]]
        try:
            parts = digests(paths)
        except OSError as error:
            raise unreadable(Path(error.filename or self.path), error) from None
        for path, part in zip(paths, parts, strict=True):
            whole.update(path.name.encode() + b"\0" + part)
        return whole.hexdigest()

    @property
    def outline(self) -> dict[str, str]:
        """File name -> what :func:`pipelines.data.shard.outline` says of it."""
        return {shard.path.name: shard.outline for split in SPLITS for shard in self.shards[split]}

    def arrays(
        self, split: Split, limit: int | None = None, seed: int = 0
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Images uint8 (n, C, H, W) and labels int64 (n,) in the files' order; encoded ones as evaluation sees them.

        ``limit`` takes a stratified subset drawn by ``seed``; only its images are decoded. Raises :class:`WaveError`
        naming file and row for an image that does not decode or has the wrong length, or a label out of range.
        """
        shards = self.shards[split]
        rows = self.num_rows(split)
        chosen = np.arange(rows)
        if limit is not None:
            labels = [shard.labels() for shard in shards]
            for shard, part in zip(shards, labels, strict=True):
                check_labels(part, len(self.classes), shard.path)
            chosen = stratified(np.concatenate(labels), limit, seed)
        self._check_memory(split, len(chosen))
        images = np.empty((len(chosen), *self.shape), np.uint8)
        labels = np.empty(len(chosen), np.int64)
        to_pixels = eval_pixels(self.shape)
        start = 0
        for shard in shards:
            first = start
            for index, size in enumerate(shard.groups):
                low, high = np.searchsorted(chosen, (start, start + size))
                local = chosen[low:high] - start
                if len(local):
                    data, found = shard.group(index, self.meta)
                    labels[low:high] = found[local]
                    if self.encoding == "raw":
                        images[low:high] = raw_pixels(data, self.shape)[local]
                    else:
                        for at, row in enumerate(local, low):
                            where = f"{shard.path}: row {start - first + row}"
                            images[at] = to_pixels(decode(data[int(row)].as_py(), self.shape, where))
                start += size
        return images, labels

    def _check_memory(self, split: Split, rows: int) -> None:
        need, have = rows * math.prod(self.shape), memory_bytes()
        if need > have:
            raise WaveError(
                f"{self.path}: {rows} {split} images take {need / 1e9:.3g} GB, this machine has {have / 1e9:.3g}; "
                "set data.in_memory=false, or take fewer"
            )


def reopen(path: str | Path, outline: Mapping[str, str]) -> Dataset:
    """For a worker: the data set as the driver opened it; raises :class:`WaveError` when a shard is another one now."""
    for name, wanted in outline.items():
        try:
            same = digest_of(Path(path, name)) == wanted
        except OSError as error:
            raise unreadable(Path(path, name), error) from None
        if not same:
            raise changed(Path(path, name))
    return open_dataset(path)


def open_dataset(path: str | Path) -> Dataset:
    """The data set in a folder, its footers read and checked; images and labels are checked when they are read.

    Raises :class:`WaveError`, one line naming the file: folder or shards missing, a set of shards incomplete, a file
    that is no Parquet, columns or metadata missing or not the same in all shards, labels out of range, no rows.
    """
    path = Path(path)
    try:
        names = sorted(p.name for p in path.iterdir())
    except FileNotFoundError:
        raise WaveError(
            f"{path}: no such folder; make it with `python -m pipelines data`, or set data.convert"
        ) from None
    except NotADirectoryError:
        raise WaveError(f"{path}: is a file; a data set is a folder of train-*.parquet and test-*.parquet") from None
    except (OSError, ValueError) as error:
        raise WaveError(f"{str(path)[:200]!r}: cannot be read: {error}") from None
    files = {split: _complete(path, split, names) for split in SPLITS}
    meta: Metadata | None = None
    shards: dict[Split, tuple[Shard, ...]] = {}
    for split in SPLITS:
        opened = []
        for file in files[split]:
            shard, found = _open_shard(file)
            if meta is not None and found != meta:
                key = next(k for k in vars(meta) if getattr(meta, k) != getattr(found, k))
                has, other = (_brief(getattr(m, key)) for m in (found, meta))
                text = f"{key} {has}, but {files['train'][0].name} has {other}"
                raise WaveError(f"{file}: has {text}; all shards come from one conversion")
            meta = found
            opened.append(shard)
        shards[split] = tuple(opened)
        if split != "held_out" and not sum(shard.rows for shard in opened):
            raise WaveError(f"{files[split][0]}: the {split} split has no rows")
    assert meta is not None  # the training split has at least one shard
    return Dataset(path, meta, shards)


def _complete(path: Path, split: Split, names: Sequence[str]) -> list[Path]:
    """The shards of a split, in order, none missing."""
    matches = [m for name in names if (m := _NAME.fullmatch(name)) and m[1] == split]
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
