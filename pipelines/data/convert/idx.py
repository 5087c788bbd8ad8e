"""IDX files, the format of MNIST and Fashion-MNIST: big-endian sizes, then uint8."""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from pipelines.config.machine import memory_bytes
from wave.errors import WaveError

from pipelines.data.dataset import Split
from pipelines.data.shard import check_labels

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_CLASSES = "t-shirt trouser pullover dress coat sandal shirt sneaker bag boot"
FASHION_CLASSES = tuple(_CLASSES.split())
_PIECE = 16 << 20
_PREFIX: dict[Split, str] = {"train": "train", "test": "t10k"}


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The uint8 array in an IDX file, gzip or plain. Raises :class:`WaveError` naming the file and what is wrong.

    Of a gzip file no more is unpacked than its header announces, and one byte to see that this was all.
    """
    try:
        with _unpacked(path) as file:
            shape = _header(path, file, dimensions)
            size = math.prod(shape)
            if size > (have := memory_bytes()):
                raise WaveError(f"{path}: its header says {_times(shape)} bytes; this machine has {have / 1e9:.0f} GB")
            data = _at_most(file, size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise WaveError(f"{path}: cannot be read ({error}); copy or install it again") from None
    if len(data) != size or not size:
        has = f"more than {size}" if len(data) > size else str(len(data))
        raise WaveError(f"{path}: has {has} bytes of values; its header says {_times(shape)}")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _unpacked(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path)) if packed else path.open("rb")


def _header(path: Path, file: BinaryIO, dimensions: int) -> tuple[int, ...]:
    magic, length = bytes((0, 0, 8, dimensions)), 4 + 4 * dimensions
    head = _at_most(file, length)
    if head[:4] != magic:
        begins = head[:4].hex() or "nothing"
        raise WaveError(f"{path}: begins with {begins}; IDX with {dimensions} axes begins with {magic.hex()}")
    if len(head) < length:
        raise WaveError(f"{path}: is cut short at {len(head)} bytes")
    return struct.unpack(f">{dimensions}I", head[4:])


def _at_most(file: BinaryIO, size: int) -> bytearray:
    """Up to ``size`` bytes, piece by piece: a size that only a header claims is not set aside."""
    data = bytearray()
    while len(data) < size and (piece := file.read(min(size - len(data), _PIECE))):
        data += piece
    return data


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def read_fashion_mnist(source: str | Path = "") -> dict[Split, tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Images uint8 (n, 1, H, W) and labels of both splits, from ``source`` or from Debian's package."""
    folder = Path(source) if str(source) else DEBIAN
    splits: dict[Split, tuple[NDArray[np.uint8], NDArray[np.int64]]] = {}
    for split, prefix in _PREFIX.items():
        image_file, label_file = (_find(folder, f"{prefix}-{name}-ubyte") for name in ("images-idx3", "labels-idx1"))
        images, labels = read_idx(image_file, 3), read_idx(label_file, 1).astype(np.int64)
        if len(images) != len(labels):
            raise WaveError(f"{label_file}: has {len(labels)} labels; {image_file.name} has {len(images)} images")
        check_labels(labels, len(FASHION_CLASSES), label_file)
        splits[split] = (images[:, None], labels)
    train, test = (splits[split][0].shape[1:] for split in ("train", "test"))
    if train != test:
        raise WaveError(f"{folder}: training images are {train[1]}x{train[2]}, test images {test[1]}x{test[2]}")
    return splits


def _find(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise WaveError(
        f"{folder}: has no {name}.gz; install Debian's dataset-fashion-mnist, or name a folder with the IDX files"
    )
