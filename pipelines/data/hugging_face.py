"""Parquet files as Hugging Face's `datasets` writes them, read where they are: no conversion, nothing is written.

The image is a struct of ``bytes`` and ``path``, or bytes alone; class names are in the schema's metadata, or the labels
are text themselves. The files do not say what a model should see: the side in pixels is a setting, mean and
standard deviation are ImageNet's.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from numpy.typing import NDArray
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from pipelines.data.hugging_face_schema import Columns, columns_of
from pipelines.data.natural_order import natural_order
from pipelines.data.shard import Metadata, Shard, check_labels, check_present, outline, unreadable
from pipelines.data.split_names import TEST, TRAIN, find_splits
from wave.errors import WaveError

DEFAULT_SIDE = 224
pc: Any = pyarrow.compute  # made when it is imported: no type checker knows its functions
_OF = re.compile(r"-(\d{5})-of-(\d{5})")


@dataclass(frozen=True)
class HuggingFaceShard(Shard):
    """A Parquet file whose columns have other names and types than ours."""

    columns: Columns = Columns("image", "label")
    classes: tuple[str, ...] = ()
    """Names that labels of text are counted by."""

    def labels(self) -> NDArray[np.int64]:
        column = self._read(lambda file: file.read([self.columns.label], use_threads=False))[self.columns.label]
        return self._numbers(column, 0)

    def group(self, index: int, meta: Metadata) -> tuple[pa.ChunkedArray, NDArray[np.int64]]:
        names = [self.columns.image, self.columns.label]
        table = self._read(lambda file: file.read_row_group(index, names, use_threads=False))
        first = sum(self.groups[:index])
        labels = self._numbers(table[self.columns.label], first)
        check_labels(labels, len(meta.classes), self.path, first)
        return self._files(table[self.columns.image], first), labels

    def texts(self) -> pa.ChunkedArray | None:
        """Labels as text, in Unicode's composed form; None where they are numbers."""
        column = self._read(lambda file: file.read([self.columns.label], use_threads=False))[self.columns.label]
        check_present(column, "label", self.path)
        return _text(_plain(column))

    def _numbers(self, column: pa.ChunkedArray, first: int) -> NDArray[np.int64]:
        check_present(column, "label", self.path, first)
        column = _plain(column)
        if (texts := _text(column)) is not None:
            found = pc.index_in(texts, pa.array(self.classes, pa.string()))
            if found.null_count:
                row = int(np.flatnonzero(found.is_null().to_numpy())[0])
                raise WaveError(f"{self.path}: row {first + row} has label {texts[row].as_py()!r}, which train has not")
            return found.cast(pa.int64()).to_numpy()
        try:
            return column.cast(pa.int64()).to_numpy()
        except pa.ArrowInvalid as error:
            raise WaveError(f"{self.path}: column {self.columns.label!r} holds labels that are no whole numbers: {error}") from None

    def _files(self, column: pa.ChunkedArray, first: int) -> pa.ChunkedArray:
        if not pa.types.is_struct(column.type):
            check_present(column, "image", self.path, first)
            return column
        data = pc.struct_field(column, "bytes")
        if data.null_count:
            row = int(np.flatnonzero(data.is_null().to_numpy())[0])
            place = (column[row].as_py() or {}).get("path")
            has = f"no bytes, only the path {place!r}; save it with its images embedded" if place else "no image"
            raise WaveError(f"{self.path}: row {first + row} has {has}")
        return data


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    kind = column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        return None
    return pc.utf8_normalize(column.cast(pa.string()), "NFC")


def is_hugging_face(schema: pa.Schema) -> bool:
    """Whether a Parquet file is of this form rather than one of ours."""
    metadata = schema.metadata or {}
    return b"wave" not in metadata and (
        b"huggingface" in metadata or any(pa.types.is_struct(field.type) for field in schema)
    )


def hugging_face_files(path: Path, ours: Sequence[str]) -> dict[str, list[Path]]:
    """What :func:`find_files` finds, unless the files called as ours are ours, or no Parquet files at all."""
    try:
        if ours and not is_hugging_face(pq.read_schema(path / ours[0])):
            return {}
        return find_files(path)
    except (pa.ArrowException, OSError):
        return {}  # said better when it is opened


def find_files(path: Path) -> dict[str, list[Path]]:
    """``train`` and ``test`` -> Parquet files, in order.

    They lie in ``path``, in ``data/`` or in the folder of the only configuration, and are named after their split, or
    their folder is. Raises :class:`WaveError` where a file is missing, or there are several configurations.
    """
    files = sorted(path.glob("*.parquet"))
    by_split: dict[str, list[Path]] = defaultdict(list)
    if files:
        for file in files:
            by_split[_split_of(file.stem)].append(file)
    else:
        folders = [folder for folder in sorted(path.iterdir()) if folder.is_dir() and _holds_parquet(folder)]
        named = [folder for folder in folders if folder.name.lower() in TRAIN + TEST]
        if not named:
            if len(folders) > 1:
                names = ", ".join(folder.name for folder in folders)
                raise WaveError(f"{path}: holds several data sets ({names}); name one as data.path")
            return find_files(folders[0]) if folders else {}  # data/, or the only configuration
        for folder in named:
            by_split[folder.name.lower()] += sorted(folder.glob("*.parquet"))
    splits, _ = find_splits({name: files for name, files in by_split.items() if name})
    for split, found in splits.items():
        _check_complete(path, split, found)
    return splits


def _holds_parquet(folder: Path) -> bool:
    return any(True for depth in ("*", "*/*") for _ in folder.glob(f"{depth}.parquet"))


def _split_of(stem: str) -> str:
    return next((word for word in re.split("[^a-z]+", stem.lower()) if word in TRAIN + TEST), "")


def _check_complete(path: Path, split: str, files: list[Path]) -> None:
    counted = [(int(found[1]), int(found[2])) for file in files if (found := _OF.search(file.stem))]
    if len({count for _, count in counted}) > 1:
        raise WaveError(f"{path}: mixes {split} files of several exports; keep those of one")
    if counted and (lacks := set(range(counted[0][1])) - {index for index, _ in counted}):
        raise WaveError(f"{path}: lacks file {min(lacks)} of {counted[0][1]} of the {split} split; fetch it again")


def open_files(
    files: dict[str, list[Path]], path: Path, side: int | None
) -> tuple[Metadata, dict[Literal["train", "test"], tuple[Shard, ...]]]:
    """Metadata and shards. Raises :class:`WaveError`, one line that names the file."""
    for split in ("train", "test"):
        if not files.get(split):
            raise WaveError(
                f"{path}: has no {split}-*.parquet" + (" (nor validation-*, valid-*, eval-*)" if split == "test" else "")
            )
    opened = {split: [_opened(file) for file in files[split]] for split in ("train", "test")}
    shards = [shard for parts in opened.values() for shard in parts]
    columns = shards[0].columns
    for shard in shards:
        if shard.columns != columns:
            raise WaveError(f"{shard.path}: has other columns or class names than {shards[0].path.name}")
    classes = columns.names or _classes(opened["train"], shards)
    side = side or DEFAULT_SIDE
    meta = Metadata("encoded", classes, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, (3, side, side))
    known = {split: tuple(_named(shard, classes) for shard in parts) for split, parts in opened.items()}
    for split, parts in known.items():
        if not sum(shard.rows for shard in parts):
            raise WaveError(f"{parts[0].path}: the {split} split has no rows")
        for shard in parts:
            check_labels(shard.labels(), len(classes), shard.path)
    return meta, known  # type: ignore[return-value]


def _opened(path: Path) -> HuggingFaceShard:
    try:
        with pq.ParquetFile(path) as file:
            groups = tuple(file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))
            return HuggingFaceShard(path, groups, outline(path), columns_of(file.schema_arrow, path))
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, error) from None


def _classes(train: Sequence[HuggingFaceShard], shards: Iterable[HuggingFaceShard]) -> tuple[str, ...]:
    """Where no metadata name them: the texts in train, in natural order, or as many numbers as there are."""
    texts = [shard.texts() for shard in train]
    if texts[0] is not None:
        return natural_order({name for part in texts if part is not None for name in pc.unique(part).to_pylist()})
    most = max((int(labels.max()) for shard in shards if len(labels := shard.labels())), default=0)
    return tuple(map(str, range(most + 1)))


def _named(shard: HuggingFaceShard, classes: tuple[str, ...]) -> HuggingFaceShard:
    return HuggingFaceShard(shard.path, shard.groups, shard.outline, shard.columns, classes)
