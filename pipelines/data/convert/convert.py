"""Converters: images as other programs keep them, into Parquet shards; written aside and renamed at the end."""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from pipelines.config.data import NEEDS_SOURCE, Data
from pipelines.config.machine import memory_bytes
from pipelines.config.sizes import MAX_SIDE
from pipelines.data.convert.encoded import write_encoded
from pipelines.data.convert.file_list import read_list
from pipelines.data.convert.idx import FASHION_CLASSES, read_fashion_mnist
from pipelines.data.convert.imagefolder import read_image_folder
from pipelines.data.convert.samples import Found, Statistics
from pipelines.data.convert.shard_writer import Progress, ShardWriter
from pipelines.data.convert.webdataset import read_web_dataset
from pipelines.data.dataset import Dataset, Split, choose_held_out, open_dataset, stratified
from pipelines.data.shard import Metadata
from pipelines.data.transforms import resized
from pipelines.runtime.files import absolute
from wave.errors import WaveError

Kind = Literal["digits", "fashion-mnist", "imagefolder", "list", "webdataset"]
READERS: Mapping[str, Callable[[Path], Found]] = {
    "imagefolder": read_image_folder,
    "list": read_list,
    "webdataset": read_web_dataset,
}
"""Kinds of image files, which are kept as they are -> who finds them and their labels."""
Raw = Mapping[Split, tuple[NDArray[np.uint8], NDArray[np.int64]]]


def convert(
    kind: Kind,
    source: str | Path,
    out: str | Path,
    *,
    image_size: int | None = None,
    held_out: int = 0,
    test_fraction: float = 0.0,
    skip_bad: int = 0,
    rows_per_shard: int | None = None,
    statistics: Statistics = "imagenet",
    progress: Progress = lambda line: None,
) -> Dataset:
    """Write ``out``, a folder of Parquet shards, and open it. Nothing is left behind when it fails.

    ``digits``: scikit-learn's 1,797 digits of 8x8, 1,437 to train on (no ``source``), brought to ``image_size``
    pixels if it is given. ``fashion-mnist``: IDX files in ``source``, by default where Debian's package puts them.
    ``imagefolder``: ``source``/train/CLASS/ and val or test, streamed, files kept as they are and each decoded once to
    prove it; ``image_size`` (default 224) is what the model sees, ``statistics`` ImageNet's mean and std or those
    of 1,000 training images. ``test_fraction`` makes a test split, drawn by a fixed seed, each class in its share,
    where there is none; up to ``skip_bad`` images that do not decode are left out.
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
    for name, value in (("test_fraction", test_fraction), ("skip_bad", skip_bad)):
        if value and kind not in READERS:
            raise WaveError(f"{name}={value} has no effect with {kind}; leave it out")
    if statistics != "imagenet" and kind not in READERS:
        raise WaveError(f"statistics={statistics} has no effect with {kind}, whose own are measured; leave it out")
    if kind in READERS and not str(source):
        raise WaveError(f"{kind} needs a source: {NEEDS_SOURCE[kind]}")
    out = Path(out)
    with _renamed(out) as folder:
        if kind in READERS:
            write_encoded(
                folder,
                READERS[kind](Path(source)),
                source=source,
                shape=(3, image_size or 224, image_size or 224),
                statistics=statistics,
                held_out=held_out,
                test_fraction=test_fraction,
                skip_bad=skip_bad,
                rows_per_shard=rows_per_shard or 2048,
                progress=progress,
            )
        else:
            digits = kind == "digits"
            raw, classes = read_digits(image_size) if digits else (read_fashion_mnist(source), FASHION_CLASSES)
            raw = _with_held_out(raw, held_out)
            meta = _raw_metadata(raw, classes)
            for split, (pixels, labels) in raw.items():
                writer = ShardWriter(folder, split, len(labels), rows_per_shard or 20_000, 1000, meta, progress)
                writer.write((image.tobytes(), int(label)) for image, label in zip(pixels, labels, strict=True))
        open_dataset(folder)
    return open_dataset(out)


def prepared(data: Data, progress: Progress = lambda line: None) -> Dataset:
    """The data set of a configuration, made first if it is missing and ``data.convert`` says how."""
    path = absolute(data.path, "data.path")  # workers run in another folder
    if data.convert is not None and (not path.exists() or (path.is_dir() and not any(path.iterdir()))):
        return convert(
            data.convert,
            data.source,
            path,
            image_size=data.image_size,
            held_out=data.held_out,
            test_fraction=data.test_fraction,
            skip_bad=data.skip_bad,
            progress=progress,
        )
    dataset = open_dataset(path, data.image_size)
    if dataset.foreign and data.held_out:
        raise WaveError(f"{path}: is read as it is, no images can be held out; leave data.held_out out")
    if dataset.foreign and data.in_memory is not True and dataset.sorted_by_label:
        progress(
            f"{path}: its training rows are in the order of their labels; data.in_memory=true shuffles them all"
        )
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
    if data.test_fraction not in (0, held := dataset.meta.test_fraction):
        raise WaveError(
            f"{path}: was converted with test_fraction={held:g}, not data.test_fraction={data.test_fraction:g}; "
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


@contextmanager
def _renamed(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out`` that becomes ``out`` when the block ends well, else is removed."""
    exists = f"{out}: exists already; remove it to convert again, or name another folder"
    _make_parent(out, exists)
    folder = out.parent / f".{out.name[:100]}.{secrets.token_hex(4)}.tmp"
    try:  # known before it is made: an interrupt in between leaves nothing
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise WaveError(f"{out}: cannot be written: {error.strerror}; name a folder that can") from None
        yield folder
        folder.chmod(0o755 & ~_umask())
        os.rename(folder, out)  # fails if another conversion has filled it since
    except OSError as error:
        if out.is_dir() and any(out.iterdir()):
            raise WaveError(exists) from None
        raise WaveError(f"{out}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make_parent(out: Path, exists: str) -> None:
    if "\0" in str(out):
        raise WaveError(f"{str(out)!r}: cannot be written: no name holds a null byte")
    try:
        if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
            raise WaveError(exists)
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WaveError(f"{out}: cannot be written: {error.strerror}; name a folder that can") from None


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
