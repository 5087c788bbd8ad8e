"""Data sets on disk: every damage is one line naming the file, and a subset is drawn in equal shares."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.convert.convert import convert
from pipelines.data.dataset import Dataset, open_dataset, stratified
from pipelines.data.shard import Metadata
from tests.pipelines.image_data import file_bytes, line


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return convert("digits", "", tmp_path_factory.mktemp("data") / "digits", rows_per_shard=600)


@pytest.fixture
def copy(digits: Dataset, tmp_path: Path) -> Path:
    return Path(shutil.copytree(digits.path, tmp_path / "copy"))


def rewrite(path: Path, change: Any) -> None:
    """Replace a shard by ``change(table)``."""
    pq.write_table(change(pq.read_table(path)), path)


def with_meta(table: pa.Table, **changes: Any) -> pa.Table:
    meta = json.loads(table.schema.metadata[b"wave"]) | changes
    return table.replace_schema_metadata({b"wave": json.dumps(meta)})


SHARD = "train-00001-of-00003.parquet"
DAMAGE = [
    (lambda t: t.drop_columns(["label"]), "has no column 'label'; columns: image"),
    (lambda t: t.drop_columns(["image"]), "has no column 'image'"),
    (lambda t: t.set_column(1, "label", t["label"].cast(pa.string())), "column 'label' is string"),
    (lambda t: t.set_column(0, "image", t["label"]), "column 'image' is int64"),
    (lambda t: t.replace_schema_metadata(None), "has no 'wave' metadata"),
    (lambda t: t.replace_schema_metadata({b"wave": b"{"}), "metadata is not valid"),
    (lambda t: t.replace_schema_metadata({b"wave": b"[]"}), "metadata is not valid"),
    (lambda t: with_meta(t, format=2), "data format 2; this version reads 1"),
    (lambda t: with_meta(t, shape=[1, 8]), "metadata is not valid"),
    (lambda t: with_meta(t, shape=[1, 8, 0]), "metadata is impossible"),
    (lambda t: with_meta(t, std=[0.0]), "metadata is impossible"),
    (lambda t: with_meta(t, mean=[0.1, 0.2]), "metadata is impossible"),
    (lambda t: with_meta(t, mean=[float("nan")]), "NaN is no number"),
    (lambda t: with_meta(t, classes=[]), "metadata is impossible"),
    (lambda t: with_meta(t, encoding="jpeg"), "metadata is impossible"),
    (lambda t: with_meta(t, mean=[0.5]), "has mean (0.5,), but train-00000-of-00003.parquet has"),
    (lambda t: t.set_column(1, "label", pa.array(np.full(len(t), 10))), "row 0 has label 10; 10 classes allow 0 to 9"),
    (lambda t: t.set_column(1, "label", pa.array(np.full(len(t), -1))), "row 0 has label -1"),
    (lambda t: t.set_column(1, "label", pa.array([3, None] * (len(t) // 2), pa.int64())), "row 1 has no label"),
    (lambda t: t.set_column(0, "image", pa.array([b"." * 64, b"." * 63] * 300)), "row 1 has 63 bytes; shape [1, 8, 8]"),
    (lambda t: t.set_column(0, "image", pa.array([b"x" * 64, None] * (len(t) // 2))), "row 1 has no image"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "text"), DAMAGE, ids=[text[:30] for _, text in DAMAGE])
def test_damaged_shard(copy: Path, change: Any, text: str) -> None:
    rewrite(copy / SHARD, change)
    message = line(lambda: open_dataset(copy).arrays("train"))
    assert f"{copy / SHARD}: " in message
    assert text in message


@pytest.mark.parametrize("keep", [0, 3, 100, -1, -200])
def test_corrupt_parquet(copy: Path, keep: int) -> None:
    data = (copy / SHARD).read_bytes()
    (copy / SHARD).write_bytes(data[:keep])
    assert f"{copy / SHARD}: not a readable Parquet file" in line(open_dataset, copy)


def test_corrupt_page(copy: Path) -> None:
    data = bytearray((copy / SHARD).read_bytes())
    data[4:3000] = b"\xff" * 2996
    (copy / SHARD).write_bytes(data)
    assert f"{copy / SHARD}: " in line(lambda: open_dataset(copy).arrays("train"))


def test_missing_parts(copy: Path, tmp_path: Path) -> None:
    assert "no such folder; make it with" in line(open_dataset, tmp_path / "none")
    assert "cannot be read" in line(open_dataset, "a\0b")
    assert "is a file" in line(open_dataset, copy / SHARD)
    (tmp_path / "empty").mkdir()
    assert "has no train-*.parquet" in line(open_dataset, tmp_path / "empty")
    (copy / SHARD).rename(copy / "train-00001-of-00004.parquet")
    assert "mixes train shards of 3 and 4" in line(open_dataset, copy)
    (copy / "train-00001-of-00004.parquet").unlink()
    assert f"lacks {SHARD} (1 of 3 train shards)" in line(open_dataset, copy)
    shutil.copy(copy / "train-00000-of-00003.parquet", copy / SHARD)
    rewrite(copy / "test-00000-of-00001.parquet", lambda t: t.slice(0, 0))
    assert "the test split has no rows" in line(open_dataset, copy)
    (copy / "test-00000-of-00001.parquet").unlink()
    assert "has no test-*.parquet" in line(open_dataset, copy)


def test_shard_removed_after_opening(copy: Path) -> None:
    dataset = open_dataset(copy)
    (copy / SHARD).unlink()
    assert str(copy / SHARD) in line(lambda: dataset.arrays("train"))
    assert str(copy / SHARD) in line(lambda: dataset.digest)


def test_undecodable_image_is_named(tmp_path: Path) -> None:
    meta = Metadata("encoded", ("a",), (0.5,), (0.5,), (1, 8, 8))
    good = file_bytes(np.zeros((9, 9), np.uint8))
    for split in ("train", "test"):
        table = pa.table([pa.array([good, good, b"bad"]), pa.array([0, 0, 0])], schema=meta.schema())
        pq.write_table(table, tmp_path / f"{split}-00000-of-00001.parquet", row_group_size=2)
    dataset = open_dataset(tmp_path)
    message = line(lambda: dataset.arrays("test"))
    assert message.startswith(f"{tmp_path / 'test-00000-of-00001.parquet'}: row 2: the image does not decode")


@pytest.mark.parametrize("kind", ["large", "fixed"])
def test_other_binary_types(copy: Path, digits: Dataset, kind: Literal["large", "fixed"]) -> None:
    new = pa.large_binary() if kind == "large" else pa.binary(64)
    rewrite(copy / SHARD, lambda t: t.set_column(0, "image", t["image"].cast(new)))
    assert (open_dataset(copy).arrays("train")[0] == digits.arrays("train")[0]).all()


def test_digest_follows_contents(copy: Path, digits: Dataset) -> None:
    assert open_dataset(copy).digest == digits.digest
    rewrite(copy / SHARD, lambda t: t.set_column(1, "label", pa.array(np.zeros(len(t), np.int64))))
    assert open_dataset(copy).digest != digits.digest


def test_subset(digits: Dataset) -> None:
    images, labels = digits.arrays("train")
    subset, chosen = digits.arrays("train", 100, seed=1)
    again, _ = digits.arrays("train", 100, seed=1)
    other, _ = digits.arrays("train", 100, seed=2)
    assert subset.shape == (100, 1, 8, 8)
    assert (subset == again).all()
    assert not (subset == other).all()
    assert (np.abs(np.bincount(chosen) - np.bincount(labels) * 100 / 1437) < 1).all()
    assert (digits.arrays("train", 5000)[0] == images).all()
    assert "subset of 0 images is empty" in line(lambda: digits.arrays("train", 0))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(1, 60), st.integers(0, 9))
def test_stratified_shares(labels: list[int], limit: int, seed: int) -> None:
    array = np.array(labels, np.int64)
    chosen = stratified(array, limit, seed)
    assert len(chosen) == len(set(chosen.tolist())) == min(limit, len(labels))
    assert (np.diff(chosen) > 0).all()
    exact = np.bincount(array, minlength=6) * len(chosen) / len(array)
    assert (np.abs(np.bincount(array[chosen], minlength=6) - exact) < 1).all()


def test_a_missing_label_is_named_however_it_is_read(tmp_path: Path) -> None:
    """A nullable column; a subset reads all labels before any image."""
    meta = Metadata("encoded", ("a",), (0.5,), (0.5,), (1, 8, 8))
    good = file_bytes(np.zeros((9, 9), np.uint8))
    for split in ("train", "test"):
        labels = pa.array([0] * 7 + [None if split == "train" else 0, 0], pa.int64())
        table = pa.table({"image": [good] * 9, "label": labels}).replace_schema_metadata(meta.schema().metadata)
        pq.write_table(table, tmp_path / f"{split}-00000-of-00001.parquet", row_group_size=4)
    for how in ({}, {"limit": 3}):
        message = line(lambda how=how: open_dataset(tmp_path).arrays("train", **how))
        assert "train-00000-of-00001.parquet: row 7 has no label" in message
