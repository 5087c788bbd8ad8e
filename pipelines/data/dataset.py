"""Data sets on disk: folders of Parquet shards, opened and checked, read whole or as a seeded subset."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.config.machine import memory_bytes
from pipelines.data.image_file import decode
from wave.errors import WaveError

from pipelines.data.checksums import digests
from pipelines.data.hugging_face import HuggingFaceShard, hugging_face_files, open_files
from pipelines.data.own_files import NAME, SPLITS, Split, open_own
from pipelines.data.transforms import CROP, eval_pixels
from pipelines.data.shard import Encoding, Metadata, Shard, changed, check_labels, raw_pixels, unreadable
from pipelines.data.shard import outline as digest_of

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
    def foreign(self) -> bool:
        """Whether the files are another program's, read where they are."""
        return any(isinstance(shard, HuggingFaceShard) for shard in self.shards["train"])

    @property
    def sorted_by_label(self) -> bool:
        """Whether more rows than a stream shuffles together are of one class after another."""
        labels = np.concatenate([shard.labels() for shard in self.shards["train"]])
        changes = int(np.count_nonzero(np.diff(labels)))
        return len(labels) > 2048 and 0 < changes < 2 * len(self.classes)

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
        parts: dict[Path, bytes] = {}
        try:
            for folder in {path.parent for path in paths}:
                own = [path for path in paths if path.parent == folder]
                parts |= zip(own, digests(own), strict=True)
        except OSError as error:
            raise unreadable(Path(error.filename or self.path), error) from None
        for path in paths:
            whole.update(path.relative_to(self.path).as_posix().encode() + b"\0" + parts[path])
        if self.foreign:  # our own files say it themselves
            whole.update(json.dumps(self.shape).encode())
        return whole.hexdigest()

    @property
    def outline(self) -> dict[str, str]:
        """File name -> what :func:`pipelines.data.shard.outline` says of it."""
        return {shard.path.relative_to(self.path).as_posix(): shard.outline for split in SPLITS for shard in self.shards[split]}

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


def reopen(path: str | Path, outline: Mapping[str, str], side: int | None = None) -> Dataset:
    """For a worker: the data set as the driver opened it; raises :class:`WaveError` when a shard is another one now."""
    for name, wanted in outline.items():
        try:
            same = digest_of(Path(path, name)) == wanted
        except OSError as error:
            raise unreadable(Path(path, name), error) from None
        if not same:
            raise changed(Path(path, name))
    return open_dataset(path, side)


def open_dataset(path: str | Path, side: int | None = None) -> Dataset:
    """The data set in a folder, its footers read and checked; images and labels are checked when they are read.

    ``side``: the pixels that models see of Hugging Face's files (:mod:`pipelines.data.hugging_face`), which do not say
    it; ours do.

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
    if others := hugging_face_files(path, [name for name in names if NAME.fullmatch(name)]):
        meta, shards = open_files(others, path, side)
        return Dataset(path, meta, {**shards, "held_out": ()})
    return Dataset(path, *open_own(path, names))
