"""Converters: what they write is what is read back, and everything that cannot be converted is one line."""

import gzip
import hashlib
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from pipelines.config.data import Data
from pipelines.data.convert.convert import convert, prepared
from pipelines.data.dataset import SPLITS, Dataset, open_dataset
from pipelines.data.convert.idx import DEBIAN, read_idx
from tests.pipelines.image_data import line


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def fashion(root: Path, train: int = 25, test: int = 10) -> dict[str, np.ndarray]:
    root.mkdir()
    rng = np.random.default_rng(1)
    arrays: dict[str, np.ndarray] = {}
    for name, count in (("train", train), ("t10k", test)):
        arrays[name] = rng.integers(0, 256, (count, 28, 28), np.uint8)
        (root / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(arrays[name])))
        (root / f"{name}-labels-idx1-ubyte").write_bytes(idx(np.arange(count) % 10))
    return arrays


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return convert("digits", "", tmp_path_factory.mktemp("data") / "digits", rows_per_shard=600)


def test_digits(digits: Dataset) -> None:
    assert (digits.num_rows("train"), digits.num_rows("test")) == (1437, 360)
    assert [shard.rows for shard in digits.shards["train"]] == [600, 600, 237]
    assert (digits.shape, digits.encoding, digits.classes) == ((1, 8, 8), "raw", tuple("0123456789"))
    images, labels = digits.arrays("train")
    assert images.dtype == np.uint8
    assert images.max() == 255
    assert digits.mean == pytest.approx([float((images / 255.0).mean())])
    assert digits.std == pytest.approx([float((images / 255.0).std())])
    test_images, test_labels = digits.arrays("test")
    assert np.bincount(test_labels).tolist() == pytest.approx([36] * 10, abs=1)
    source: Any = load_digits()
    everything = np.concatenate([images, test_images])[:, 0].reshape(1797, 64)
    wanted = np.rint(source.images * 255 / 16).astype(np.uint8).reshape(1797, 64)
    both = [
        sorted(map(bytes, np.concatenate([pixels, y[:, None].astype(np.uint8)], 1)))
        for pixels, y in ((everything, np.concatenate([labels, test_labels])), (wanted, source.target))
    ]
    assert both[0] == both[1]


def test_conversion_is_reproducible(digits: Dataset, tmp_path: Path) -> None:
    again = convert("digits", "", tmp_path / "a" / "b", rows_per_shard=600)
    assert again.digest == digits.digest
    assert convert("digits", "", tmp_path / "other").digest != digits.digest
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "other"]
    assert open_dataset(again.path) == again
    assert pickle.loads(pickle.dumps(again)).digest == digits.digest


def test_fashion_mnist(tmp_path: Path) -> None:
    arrays = fashion(tmp_path / "idx")
    dataset = convert("fashion-mnist", tmp_path / "idx", tmp_path / "out")
    images, labels = dataset.arrays("train")
    assert (images[:, 0] == arrays["train"]).all()
    assert labels.tolist() == [i % 10 for i in range(25)]
    assert dataset.classes[9] == "boot"


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_fashion_mnist_of_debian() -> None:
    images = read_idx(DEBIAN / "t10k-images-idx3-ubyte.gz", 3)
    assert (images.shape, hashlib.sha256(images.tobytes()).hexdigest()[:8]) == ((10000, 28, 28), "c867c93f")


def test_bad_idx_files(tmp_path: Path) -> None:
    assert "dataset-fashion-mnist" in line(convert, "fashion-mnist", tmp_path / "none", tmp_path / "out")
    root = tmp_path / "idx"
    fashion(root)
    images, labels = root / "train-images-idx3-ubyte.gz", root / "train-labels-idx1-ubyte"
    for file, data, text in (
        (images, b"", "begins with nothing"),
        (images, b"hello", "begins with 68656c6c"),
        (images, idx(np.zeros(5)), "begins with 00000801"),
        (images, idx(np.zeros((2, 2, 2)))[:10], "cut short"),
        (images, gzip.compress(idx(np.zeros((9, 28, 28))))[:30], "cannot be read"),
        (images, idx(np.zeros((2, 2, 2)))[:-1], "has 7 bytes of values; its header says 2 x 2 x 2"),
        (
            images,
            struct.pack(">BBBB3I", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1),
            "its header says 4294967295 x 4294967295 x 4294967295 bytes",
        ),
        (images, idx(np.zeros((24, 28, 28))), "has 25 labels; train-images-idx3-ubyte.gz has 24 images"),
        (images, idx(np.zeros((25, 14, 14))), "training images are 14x14, test images 28x28"),
        (images, idx(np.zeros((25, 28, 28))), "same value everywhere"),
        (labels, idx(np.full(25, 10)), "row 0 has label 10; 10 classes allow 0 to 9"),
    ):
        before = file.read_bytes()
        file.write_bytes(data)
        message = line(convert, "fashion-mnist", root, tmp_path / "out")
        assert text in message
        assert str(root) in message or "everywhere" in text
        file.write_bytes(before)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["idx"]


def test_where_a_conversion_cannot_go(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    (tmp_path / "empty").mkdir()
    assert "exists already; remove it" in line(convert, "digits", "", tmp_path / "full")
    assert "exists already" in line(convert, "digits", "", tmp_path / "file")
    assert "cannot be written" in line(convert, "digits", "", tmp_path / "file" / "out")
    assert "cannot be written" in line(convert, "digits", "", "/proc/nowhere/out")
    assert "cannot be written" in line(convert, "digits", "", "a\0b")
    assert "convert='digit' is unknown" in line(convert, "digit", "", tmp_path / "out")
    assert "image_size=9 has no effect" in line(convert, "fashion-mnist", "", tmp_path / "out", image_size=9)
    assert "rows_per_shard=0" in line(convert, "digits", "", tmp_path / "out", rows_per_shard=0)
    convert("digits", "", tmp_path / "empty")


def test_digits_at_another_size_are_the_same_digits(tmp_path: Path) -> None:
    settings = Data(path=str(tmp_path / "digits-28"), convert="digits", image_size=28)
    large, labels = prepared(settings).arrays("train")
    small, same = convert("digits", "", tmp_path / "digits").arrays("train")
    assert large.shape == (1437, 1, 28, 28) and (labels == same).all()
    # a pixel between two centres is their weighted mean: output centre x is at (x + 0.5) * 8 / 28 - 0.5 of the input
    at = np.clip((np.arange(28) + 0.5) * 8 / 28 - 0.5, 0, 7)
    left = np.minimum(at.astype(int), 6)
    across = np.eye(8)[left] * (1 - (at - left))[:, None] + np.eye(8)[left + 1] * (at - left)[:, None]
    assert np.abs(across @ small[:50, 0] @ across.T - large[:50, 0]).max() <= 0.51
    wrong = Data(path=settings.path, convert="digits", image_size=14)
    assert "was converted for 28x28 pixels, not data.image_size=14" in line(prepared, wrong)


def test_held_out_images_are_a_split_of_their_own(tmp_path: Path) -> None:
    settings = Data(path=str(tmp_path / "held"), convert="digits", held_out=137)
    apart = prepared(settings)
    whole = convert("digits", "", tmp_path / "whole")
    rows = {split: apart.num_rows(split) for split in SPLITS}
    assert rows == {"train": 1300, "test": 360, "held_out": 137} and whole.num_rows("held_out") == 0
    images = [apart.arrays(split)[0].tobytes() for split in ("train", "held_out")]
    both = {image.tobytes() for split in ("train", "held_out") for image in apart.arrays(split)[0]}
    assert len(images[0]) + len(images[1]) == len(whole.arrays("train")[0].tobytes())
    assert both == {image.tobytes() for image in whole.arrays("train")[0]}
    assert np.bincount(apart.arrays("held_out")[1]).min() >= 13
    assert apart.mean != whole.mean, "statistics are those of the images to train on"
    assert "was converted with 137 images held out, not data.held_out=99" in line(
        prepared, settings.model_copy(update={"held_out": 99})
    )
    assert "held_out=1437 of 1437" in line(convert, "digits", "", tmp_path / "none", held_out=1437)
    assert not (tmp_path / "none").exists()


def test_prepared_converts_once(tmp_path: Path) -> None:
    settings = Data(path=str(tmp_path / "digits"), convert="digits")
    lines: list[str] = []
    dataset = prepared(settings, lines.append)
    assert lines == ["train: shard 1 of 1 written", "test: shard 1 of 1 written"]
    before = [p.stat().st_mtime_ns for p in dataset.path.iterdir()]
    assert prepared(settings).digest == dataset.digest
    assert [p.stat().st_mtime_ns for p in dataset.path.iterdir()] == before
    assert "no such folder" in line(prepared, Data(path=str(tmp_path / "none")))
    other = Data(path=str(tmp_path / "digits"), convert="imagefolder", source="x", image_size=32)
    assert "was converted for 8x8 pixels, not data.image_size=32" in line(prepared, other)
