"""Converters: images as other programs keep them, into Parquet shards; written aside and renamed at the end."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from pipelines.config.machine import memory_bytes
from wave.errors import WaveError

from pipelines.data.dataset import Dataset, Split, choose_held_out, open_dataset, shard_name, stratified
from pipelines.data.convert.idx import FASHION_CLASSES, read_fashion_mnist
from pipelines.data.convert.imagefolder import ImageFolder
from pipelines.data.transforms import resized
from pipelines.config.machine import memory_bytes
from pipelines.config.data import Data
from pipelines.data.shard import Metadata
from pipelines.config.sizes import MAX_SIDE
from pipelines.runtime.files import absolute

Statistics = Literal["imagenet", "measured"]
Kind = Literal["digits", "fashion-mnist", "imagefolder"]
Progress = Callable[[str], None]
Row = tuple[bytes, int]
Raw = Mapping[Split, tuple[NDArray[np.uint8], NDArray[np.int64]]]


def convert(
    kind: Kind,
    source: str | Path,
    out: str | Path,
    *,
    image_size: int | None = None,
    held_out: int = 0,
    rows_per_shard: int | None = None,
    statistics: Statistics = "imagenet",
    progress: Progress = lambda line: None,
) -> Dataset:
    """Write ``out``, a folder of Parquet shards, and open it. Nothing is left behind when it fails.

    ``digits``: scikit-learn's 1,797 digits of 8x8, 1,437 to train on (no ``source``), brought to ``image_size``
    pixels if it is given. ``fashion-mnist``: IDX files in ``source``, by default where Debian's package puts them.
    ``imagefolder``: ``source``/train/CLASS/ and val or test, streamed, files kept as they are and each decoded once to
    prove it; ``image_size`` (default 224) is what the model sees, ``statistics`` ImageNet's mean and std or those
    of 1,000 training images.
    ``held_out`` training images become a split of their own that nothing trains on, as many of each class as its share.
    Raises :class:`WaveError`.
    """
    if kind not in get_args(Kind):
        raise WaveError(f"convert={kind!r} is unknown; use one of {', '.join(get_args(Kind))}")
    if rows_per_shard is not None and rows_per_shard < 1:
        raise WaveError(f"rows_per_shard={rows_per_shard} must be at least 1")
    if image_size is not None and not 1 <= image_size <= MAX_SIDE:
        raise WaveError(f"image_size={image_size} must be from 1 to {MAX_SIDE}")
    if image_size is not None and kind == "fashion-mnist":
        raise WaveError(f"image_size={image_size} has no effect with {kind}, whose images have one size; leave it out")
    if str(source) and kind == "digits":
        raise WaveError(f"{str(source)!r} has no effect: digits come with scikit-learn; leave it out")
    if statistics != "imagenet" and kind != "imagefolder":
        raise WaveError(f"statistics={statistics} has no effect with {kind}, whose own are measured; leave it out")
    if kind == "imagefolder" and not str(source):
        raise WaveError("imagefolder needs a source: the folder that holds train/CLASS/ and val/CLASS/ with images")
    out = Path(out)
    with _renamed(out) as folder:
        if kind == "imagefolder":
            images = ImageFolder(Path(source), image_size or 224, held_out)
            meta = Metadata("encoded", images.classes, *images.statistics(statistics), images.shape)
            for split, files in images.files.items():
                writer = _Writer(folder, split, len(files), rows_per_shard or 2048, 128, meta, progress)
                writer.write(images.rows(split))
        else:
            digits = kind == "digits"
            raw, classes = read_digits(image_size) if digits else (read_fashion_mnist(source), FASHION_CLASSES)
            raw = _with_held_out(raw, held_out)
            meta = _raw_metadata(raw, classes)
            for split, (pixels, labels) in raw.items():
                writer = _Writer(folder, split, len(labels), rows_per_shard or 20_000, 1000, meta, progress)
                writer.write((image.tobytes(), int(label)) for image, label in zip(pixels, labels, strict=True))
        open_dataset(folder)
    return open_dataset(out)


def prepared(data: Data, progress: Progress = lambda line: None) -> Dataset:
    """The data set of a configuration, made first if it is missing and ``data.convert`` says how."""
    path = absolute(data.path, "data.path")  # workers run in another folder
    if data.convert is not None and (not path.exists() or (path.is_dir() and not any(path.iterdir()))):
        return convert(
            data.convert, data.source, path, image_size=data.image_size, held_out=data.held_out, progress=progress
        )
    dataset = open_dataset(path)
    if data.image_size is not None and dataset.shape[1:] != (data.image_size, data.image_size):
        size = "x".join(map(str, dataset.shape[1:]))
        raise WaveError(
            f"{path}: was converted for {size} pixels, not data.image_size={data.image_size}; use another data.path"
        )
    if data.held_out not in (0, held := dataset.num_rows("held_out")):
        raise WaveError(
            f"{path}: was converted with {held} images held out, not data.held_out={data.held_out}; "
            "use another data.path"
        )
    return dataset


def read_digits(image_size: int | None = None) -> tuple[Raw, tuple[str, ...]]:
    """scikit-learn's digits (n, 1, 8, 8), values 0..16 scaled to 0..255; always the same 360 for the test.

    ``image_size``: bilinear at another side in pixels.
    """
    digits: Any = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    side = image_size or images.shape[-1]
    if 4 * len(images) * side**2 > memory_bytes():  # float32 while they are resized
        raise WaveError(f"image_size={side} of {len(images)} digits does not fit into memory; choose a smaller one")
    images = resized(images, side)
    labels = digits.target.astype(np.int64)
    test = np.zeros(len(labels), bool)
    test[stratified(labels, 360, seed=0)] = True
    return {"train": (images[~test], labels[~test]), "test": (images[test], labels[test])}, tuple("0123456789")


def _with_held_out(raw: Raw, count: int) -> Raw:
    if not count:
        return raw
    images, labels = raw["train"]
    held = choose_held_out(labels, count)
    return {**raw, "train": (images[~held], labels[~held]), "held_out": (images[held], labels[held])}


def _raw_metadata(raw: Raw, classes: tuple[str, ...]) -> Metadata:
    images = raw["train"][0]
    by_channel = images.transpose(1, 0, 2, 3).reshape(images.shape[1], -1)
    counts = np.stack([np.bincount(channel, minlength=256) for channel in by_channel])  # exact, no float copy of all
    levels = np.arange(256) / 255
    mean = counts @ levels / counts.sum(1)
    std = np.sqrt(np.maximum(counts @ levels**2 / counts.sum(1) - mean**2, 0))
    if (std < 1e-4).any():
        raise WaveError(f"all training images have the same value everywhere in channel {int(np.argmin(std))}")
    c, h, w = images.shape[1:]
    return Metadata("raw", classes, tuple(mean.tolist()), tuple(std.tolist()), (c, h, w))


class _Writer:
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


@contextmanager
def _renamed(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out`` that becomes ``out`` when the block ends well, else is removed."""
    exists = f"{out}: exists already; remove it to convert again, or name another folder"
    try:
        if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
            raise WaveError(exists)
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name[:100]}.", suffix=".tmp", dir=out.parent))
    except OSError as error:
        raise WaveError(f"{out}: cannot be written: {error.strerror}; name a folder that can") from None
    except ValueError as error:
        raise WaveError(f"{str(out)!r}: cannot be written: {error}") from None
    try:
        yield folder
        folder.chmod(0o755 & ~_umask())
        os.rename(folder, out)  # fails if another conversion has filled it since
    except OSError as error:
        if out.is_dir() and any(out.iterdir()):
            raise WaveError(exists) from None
        raise WaveError(f"{out}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
