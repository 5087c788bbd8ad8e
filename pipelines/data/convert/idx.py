"""IDX files, the format of MNIST and Fashion-MNIST: big-endian sizes, then uint8."""

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wave.errors import WaveError

from pipelines.data.dataset import Split
from pipelines.data.shard import check_labels

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_CLASSES = "t-shirt trouser pullover dress coat sandal shirt sneaker bag boot"
FASHION_CLASSES = tuple(_CLASSES.split())
_PREFIX: dict[Split, str] = {"train": "train", "test": "t10k"}


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The uint8 array in an IDX file, gzip or plain. Raises :class:`WaveError` naming the file and what is wrong."""
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise WaveError(f"{path}: cannot be read ({error}); copy or install it again") from None
    magic = bytes((0, 0, 8, dimensions))
    if data[:4] != magic:
        raise WaveError(
            f"{path}: begins with {data[:4].hex() or 'nothing'}; IDX with {dimensions} axes begins with {magic.hex()}"
        )
    header = 4 + 4 * dimensions
    if len(data) < header:
        raise WaveError(f"{path}: is cut short at {len(data)} bytes")
    shape = tuple(int(n) for n in np.frombuffer(data, ">u4", dimensions, 4))
    size = 1
    for n in shape:
        size *= n  # Python's integers: a damaged header must not overflow
    if len(data) - header != size or not size:
        raise WaveError(
            f"{path}: has {len(data) - header} bytes of values; its header says {' x '.join(map(str, shape))}"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


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
