"""One shard of a data set: a Parquet file, its metadata, and its row groups, each checked when it is read."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.data.image_file import MODES
from pipelines.config.sizes import MAX_SIDE
from wave.errors import WaveError
from wave.json_file import JsonError, parse_json


Encoding = Literal["raw", "encoded"]
FORMAT = 1
MAX_CHANNELS = 64
KEY = b"wave"
_OPTIONAL = ("skipped", "test_fraction")
"""Fields that are not written where they say nothing: data sets from before them keep their digests."""


@dataclass(frozen=True)
class Metadata:
    """The same in every shard. ``mean`` and ``std`` a channel, images in 0..1; ``shape`` (C, H, W) the model sees.

    ``raw`` images are uint8 bytes in CHW order, ``encoded`` ones whole image files of any size.
    """

    encoding: Encoding
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    shape: tuple[int, int, int]
    skipped: int = 0
    """Images of the source that did not decode and were left out, as ``data.skip_bad`` allows."""
    test_fraction: float = 0.0
    """The share of the training images that the test split was made of; 0 where the source has one."""

    def schema(self) -> pa.Schema:
        """The Parquet schema of a shard, this metadata in it as JSON under the key ``wave``."""
        said = {key: value for key, value in vars(self).items() if value or key not in _OPTIONAL}
        text = json.dumps({"format": FORMAT, **said}, separators=(",", ":"))
        return pa.schema([pa.field("image", pa.binary(), False), pa.field("label", pa.int64(), False)], {KEY: text})

    @classmethod
    def read(cls, schema: pa.Schema, where: Path) -> "Metadata":
        """Raises :class:`WaveError` naming the file when something is missing, of another format or impossible."""
        for name, types in (("image", _BINARY), ("label", (pa.types.is_int64,))):
            if name not in schema.names:
                raise WaveError(f"{where}: has no column {name!r}; columns: {', '.join(schema.names)}")
            if not any(is_type(schema.field(name).type) for is_type in types):
                raise WaveError(f"{where}: column {name!r} is {schema.field(name).type}; image is binary, label int64")
        raw = (schema.metadata or {}).get(KEY)
        if raw is None:
            raise WaveError(f"{where}: has no 'wave' metadata; write it with `python -m pipelines data`")
        try:
            data: dict[str, Any] = parse_json(raw, KEY.decode())
            if data["format"] != FORMAT:
                raise WaveError(
                    f"{where}: data format {data['format']!r}; this version reads {FORMAT}: convert it again"
                )
            c, h, w = (int(n) for n in data["shape"])
            mean, std = (tuple(float(x) for x in data[key]) for key in ("mean", "std"))
            skipped, fraction = int(data.get("skipped", 0)), float(data.get("test_fraction", 0))
            meta = cls(
                data["encoding"], tuple(map(str, data["classes"])), mean, std, (c, h, w), skipped, fraction
            )
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            if isinstance(error, JsonError):
                raise WaveError(f"{where}: its 'wave' metadata is not valid ({error}); convert it again") from None
            if isinstance(error, WaveError):
                raise
            raise WaveError(f"{where}: its 'wave' metadata is not valid ({error!r}); convert it again") from None
        values = (*meta.mean, *meta.std)
        if (
            meta.encoding not in get_args(Encoding)
            or (meta.encoding == "encoded" and c not in MODES)
            or min(c, h, w, len(meta.classes)) < 1
            or max(h, w) > MAX_SIDE
            or c > MAX_CHANNELS
            or {len(meta.mean), len(meta.std)} != {c}
            or not all(math.isfinite(v) for v in values)
            or min(meta.std) <= 0
        ):
            raise WaveError(f"{where}: its 'wave' metadata is impossible ({raw.decode()[:120]}); convert it again")
        return meta


_BINARY = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)


@dataclass(frozen=True)
class Shard:
    """One Parquet file, the number of rows of each of its row groups, and the digest of its :func:`outline`."""

    path: Path
    groups: tuple[int, ...]
    outline: str = ""

    @property
    def rows(self) -> int:
        return sum(self.groups)

    def labels(self) -> NDArray[np.int64]:
        """int64 (rows,); raises :class:`WaveError` that names the row of a label that is missing."""
        column = self._read(lambda file: file.read(["label"], use_threads=False))["label"]
        check_present(column, "label", self.path)
        return column.to_numpy()

    def group(self, index: int, meta: Metadata) -> tuple[pa.ChunkedArray, NDArray[np.int64]]:
        """Images (still bytes) and labels of one row group, lengths and labels checked."""
        table = self._read(lambda file: file.read_row_group(index, ["image", "label"], use_threads=False))
        first = sum(self.groups[:index])
        for name in ("image", "label"):
            check_present(table[name], name, self.path, first)
        labels = table["label"].to_numpy()
        check_labels(labels, len(meta.classes), self.path, first)
        if meta.encoding == "raw":
            table = table.set_column(0, "image", table["image"].cast(pa.binary()))
            size = math.prod(meta.shape)
            lengths = np.concatenate([np.diff(_offsets(chunk)) for chunk in table["image"].chunks] or [np.zeros(0)])
            if (wrong := np.flatnonzero(lengths != size)).size:
                raise WaveError(
                    f"{self.path}: row {first + int(wrong[0])} has {int(lengths[wrong[0]])} bytes; "
                    f"shape {list(meta.shape)} needs {size}"
                )
        return table["image"], labels

    def _read(self, how: Any) -> Any:
        try:
            if self.outline and outline(self.path) != self.outline:
                raise changed(self.path)
            with pq.ParquetFile(self.path) as file:
                return how(file)
        except (pa.ArrowException, OSError) as error:
            raise unreadable(self.path, error) from None


def outline(path: Path) -> str:
    """Digest of a Parquet file's length and footer, which holds the place, size and extremes of every column chunk:
    it tells another file in the place of the first one, without reading it whole."""
    with path.open("rb") as file:
        length = file.seek(0, 2)
        file.seek(max(0, length - 8))
        footer = int.from_bytes(file.read(4), "little")
        file.seek(max(0, length - 8 - footer))
        return hashlib.sha256(length.to_bytes(8, "little") + file.read()).hexdigest()


def changed(path: Path) -> WaveError:
    return WaveError(f"{path}: was changed while a run used it; put the first one back, or run again with the new one")


def unreadable(path: Path, error: BaseException) -> WaveError:
    reason = " ".join(str(error).split())
    return WaveError(f"{path}: not a readable Parquet file ({reason[:100]}); convert it again")


def _offsets(chunk: pa.Array) -> NDArray[np.int32]:
    buffer = chunk.buffers()[1]
    return np.frombuffer(buffer, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]


def raw_pixels(images: pa.ChunkedArray, shape: Sequence[int]) -> NDArray[np.uint8]:
    """uint8 (rows, C, H, W) of checked raw images, read-only and without a copy where they lie in one chunk."""
    parts = [
        np.frombuffer(chunk.buffers()[2], np.uint8)[_offsets(chunk)[0] : _offsets(chunk)[-1]].reshape(-1, *shape)
        for chunk in images.chunks
        if len(chunk)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def check_present(column: pa.ChunkedArray, name: str, where: Path, first_row: int = 0) -> None:
    """Raise :class:`WaveError` naming file and row unless the column has a value in every row."""
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise WaveError(f"{where}: row {first_row + row} has no {name}; leave the row out, or give it one")


def check_labels(labels: NDArray[np.int64], classes: int, where: Path, first_row: int = 0) -> None:
    """Raise :class:`WaveError` naming file and row unless all labels are in 0..classes-1."""
    if (wrong := np.flatnonzero((labels < 0) | (labels >= classes))).size:
        row = int(wrong[0])
        raise WaveError(
            f"{where}: row {first_row + row} has label {labels[row]}; {classes} classes allow 0 to {classes - 1}"
        )
