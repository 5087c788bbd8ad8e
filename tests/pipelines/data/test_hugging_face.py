"""Parquet of Hugging Face's `datasets`, as `data.path`: whatever its columns, types, names of files and of classes are."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.config.data import Data
from pipelines.data.batches import evaluation_batches, training_batches
from pipelines.data.convert.convert import prepared
from pipelines.data.dataset import Dataset, open_dataset, reopen
from tests.pipelines.image_data import file_bytes, line

NAMES = ("cat", "dog", "emu")
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def features(names: Sequence[str] | None, image: str = "image", label: str = "label") -> dict[bytes, str]:
    """The schema metadata that ``datasets`` writes."""
    kind = {"names": list(names), "_type": "ClassLabel"} if names else {"dtype": "int64", "_type": "Value"}
    return {b"huggingface": json.dumps({"info": {"features": {image: {"_type": "Image"}, label: kind}}})}


def table(
    labels: Sequence[Any], label_type: Any = None, names: Sequence[str] | None = NAMES, columns: Any = ("image", "label")
) -> pa.Table:
    """A row a label; its picture has the level 10 times its row."""
    rows = [
        {"bytes": file_bytes(np.full((8, 8, 3), 10 * row, np.uint8)), "path": f"{row}.png"} for row in range(len(labels))
    ]
    values = labels if isinstance(labels, pa.Array) else pa.array(labels, label_type or pa.int64())
    made = pa.table({columns[0]: pa.array(rows, IMAGE), columns[1]: values})
    return made.replace_schema_metadata(features(names, *columns)) if names is not None else made


def write(root: Path, tables: dict[str, pa.Table]) -> Path:
    for name, rows in tables.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, root / name, row_group_size=4)
    return root


def both(root: Path, rows: pa.Table, other: pa.Table | None = None) -> Path:
    return write(root, {"train-00000-of-00001.parquet": rows, "test-00000-of-00001.parquet": other or rows})


def read(dataset: Dataset, split: Any = "train") -> tuple[list[int], list[int]]:
    images, labels = dataset.arrays(split)
    return (images[:, 0, 0, 0] / 10).round().astype(int).tolist(), labels.tolist()


LABELS = [0, 2, 1, 1, 0, 2]


def test_class_names_come_from_the_metadata(tmp_path: Path) -> None:
    dataset = open_dataset(both(tmp_path, table(LABELS)), 8)
    assert (dataset.classes, dataset.shape, dataset.encoding) == (NAMES, (3, 8, 8), "encoded")
    assert read(dataset) == (list(range(6)), LABELS)
    assert open_dataset(tmp_path).shape == (3, 224, 224)
    assert dataset.digest == open_dataset(tmp_path, 8).digest != open_dataset(tmp_path).digest


@pytest.mark.parametrize(
    "kind", [pa.int8(), pa.uint8(), pa.int32(), pa.uint64(), pa.int64(), pa.float64(), pa.dictionary(pa.int8(), pa.int64())]
)
def test_labels_of_any_type_of_numbers(kind: pa.DataType, tmp_path: Path) -> None:
    values = pa.array(LABELS, pa.int64())
    values = values.dictionary_encode().cast(kind) if pa.types.is_dictionary(kind) else values.cast(kind)
    dataset = open_dataset(both(tmp_path, table(values)), 8)
    assert read(dataset)[1] == LABELS
    assert dataset.arrays("train", 3)[1].tolist() == [0, 1, 2] or len(dataset.arrays("train", 3)[1]) == 3


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
@pytest.mark.parametrize("named", [True, False])
def test_labels_that_are_text(kind: pa.DataType, named: bool, tmp_path: Path) -> None:
    texts = ["c10", "c2", "c1", "c2", "c10", "c1"]
    values = pa.array(texts)
    values = values.dictionary_encode() if pa.types.is_dictionary(kind) else values.cast(kind)
    rows = table(values, names=("c10", "c2", "c1") if named else None)
    dataset = open_dataset(both(tmp_path, rows), 8)
    assert dataset.classes == (("c10", "c2", "c1") if named else ("c1", "c2", "c10"))
    assert [dataset.classes[label] for label in read(dataset)[1]] == texts


def test_numbers_without_names_are_their_own(tmp_path: Path) -> None:
    dataset = open_dataset(both(tmp_path, table([0, 11, 3], names=None)), 8)
    assert dataset.classes == tuple(map(str, range(12))) and read(dataset)[1] == [0, 11, 3]


@pytest.mark.parametrize("kind", [pa.binary_view(), pa.large_binary(), pa.binary()])
@pytest.mark.parametrize("bare", [True, False])
def test_images_of_any_binary_type(kind: pa.DataType, bare: bool, tmp_path: Path) -> None:
    rows = table(LABELS)
    data = rows["image"].combine_chunks().field("bytes").cast(kind)
    column = data if bare else pa.StructArray.from_arrays([data, pa.array(["x"] * 6)], ["bytes", "path"])
    rows = rows.set_column(0, "image", column)
    for split in ("train", "test"):  # Arrow does not cut a view into row groups
        pq.write_table(rows, tmp_path / f"{split}-00000-of-00001.parquet")
    assert read(open_dataset(tmp_path, 8)) == (list(range(6)), LABELS)


@pytest.mark.parametrize("columns", [("img", "fine_label"), ("image", "labels"), ("photo", "species")])
def test_columns_by_other_names(columns: tuple[str, str], tmp_path: Path) -> None:
    rows = table(LABELS, columns=columns).append_column("width", pa.array([8] * 6))
    rows = rows.replace_schema_metadata(features(NAMES, *columns))
    assert read(open_dataset(both(tmp_path, rows), 8))[1] == LABELS


def test_two_columns_of_labels(tmp_path: Path) -> None:
    declared = json.loads(features(NAMES)[b"huggingface"])
    declared["info"]["features"] |= {n: {"names": NAMES, "_type": "ClassLabel"} for n in ("coarse_label", "fine_label")}
    rows = table(LABELS, columns=("image", "fine_label")).append_column("coarse_label", pa.array(LABELS))
    rows = rows.replace_schema_metadata({b"huggingface": json.dumps(declared)})
    message = line(open_dataset, both(tmp_path, rows))
    assert "has 2 columns of labels (fine_label, coarse_label); rename one to 'label'" in message


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
        ("data/train-00000-of-00001-a09b74b3ef9c3b56.parquet", "data/validation-00000-of-00001-b4a5b74b3ef9c3b5.parquet"),
        ("plain_text/train-00000-of-00001.parquet", "plain_text/valid-00000-of-00001.parquet"),
        ("default/train/0000.parquet", "default/test/0000.parquet"),
        ("train.parquet", "eval.parquet"),
        ("birds_train_0.parquet", "birds_val_0.parquet"),
    ],
)
def test_wherever_the_files_lie(train: str, test: str, tmp_path: Path) -> None:
    dataset = open_dataset(write(tmp_path / "set", {train: table(LABELS), test: table([1])}), 8)
    assert (dataset.num_rows("train"), dataset.num_rows("test")) == (6, 1)
    assert len(dataset.digest) == 64
    assert reopen(dataset.path, dataset.outline, 8).meta == dataset.meta
    write(tmp_path / "set", {train: table(LABELS[::-1])})
    assert "was changed while a run used it" in line(reopen, dataset.path, dataset.outline, 8)


def test_it_trains_and_evaluates_from_a_stream_and_from_memory(tmp_path: Path) -> None:
    both(tmp_path, table(LABELS))
    for kept in (True, False):
        settings = Data(path=str(tmp_path), image_size=8, in_memory=kept)
        dataset = prepared(settings)
        assert dataset.shape == (3, 8, 8)
        batch = next(training_batches(dataset, settings, 6)(0))
        assert sorted(batch.labels.tolist()) == sorted(LABELS)
        assert next(iter(evaluation_batches(dataset, settings, 6)())).labels.tolist() == LABELS
    assert "no images can be held out" in line(prepared, Data(path=str(tmp_path), held_out=1))


def test_rows_in_the_order_of_their_labels_are_said(tmp_path: Path) -> None:
    """A stream shuffles about a thousand rows at a time: batches of one class teach nothing."""
    rows = pa.table({"image": pa.array([b""] * 3000), "label": [row // 1000 for row in range(3000)]})
    both(tmp_path, rows.replace_schema_metadata(features(NAMES)), table([0]))
    lines: list[str] = []
    prepared(Data(path=str(tmp_path)), lines.append)
    assert lines == [
        f"{tmp_path}: its training rows are in the order of their labels; data.in_memory=true shuffles them all"
    ]
    prepared(Data(path=str(tmp_path), in_memory=True), lines.append)
    assert len(lines) == 1


# --- what goes wrong is one line that names the file and the row ---


@pytest.mark.parametrize("how", [{}, {"limit": 2}])
def test_a_row_without_a_label(how: dict[str, int], tmp_path: Path) -> None:
    both(tmp_path, table([0] * 7 + [None, 1]), table([0]))
    message = line(lambda: open_dataset(tmp_path, 8).arrays("train", **how))
    assert "train-00000-of-00001.parquet: row 7 has no label" in message


def test_rows_that_cannot_be_read(tmp_path: Path) -> None:
    good = table([0, 1])
    struct = pa.array([{"bytes": b"x", "path": "a"}, {"bytes": None, "path": "b.png"}], IMAGE)
    both(tmp_path, good.set_column(0, "image", struct), good)
    message = line(lambda: open_dataset(tmp_path, 8).arrays("train"))
    assert "row 1 has no bytes, only the path 'b.png'; save it with its images embedded" in message
    both(tmp_path, good.set_column(0, "image", pa.array([None, None], IMAGE)), good)
    assert "row 0 has no image" in line(lambda: open_dataset(tmp_path, 8).arrays("train"))
    both(tmp_path, good, table([0, -1]))
    assert "test-00000-of-00001.parquet: row 1 has label -1; 3 classes allow 0 to 2" in line(open_dataset, tmp_path)
    both(tmp_path, table(pa.array(["a"]), names=None), table(pa.array(["b"]), names=None))
    assert "row 0 has label 'b', which train has not" in line(open_dataset, tmp_path)
    both(tmp_path, table([0.5], pa.float64()))
    assert "column 'label' holds labels that are no whole numbers" in line(open_dataset, tmp_path)


def test_sets_that_are_not_whole(tmp_path: Path) -> None:
    write(tmp_path / "a", {"data/train-00000-of-00002.parquet": table([0]), "data/test-00000-of-00001.parquet": table([0])})
    assert "lacks file 1 of 2 of the train split" in line(open_dataset, tmp_path / "a")
    write(tmp_path / "b", {"data/train-00000-of-00001.parquet": table([0])})
    assert "has no test-*.parquet (nor validation-*, valid-*, eval-*)" in line(open_dataset, tmp_path / "b")
    write(tmp_path / "c", {"x/train.parquet": table([0]), "y/train.parquet": table([0])})
    assert "holds several data sets (x, y); name one as data.path" in line(open_dataset, tmp_path / "c")
    both(tmp_path / "d", table([0]), table([0], names=("emu", "dog", "cat")))
    assert "has other columns or class names than train-00000" in line(open_dataset, tmp_path / "d")
    rows = table([0]).replace_schema_metadata({b"huggingface": b'{"info": 3}'})
    assert "its 'huggingface' metadata are not valid" in line(open_dataset, both(tmp_path / "e", rows))
    assert "has no column of labels" in line(open_dataset, both(tmp_path / "f", table([0]).drop_columns(["label"])))
