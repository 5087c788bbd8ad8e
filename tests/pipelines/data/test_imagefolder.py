"""Folders of images, any of Pillow's formats: what is converted is what was there, and what cannot be is one line."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.data.convert.convert import convert
from pipelines.data.dataset import SPLITS
from tests.pipelines.image_data import file_bytes, line
from tests.pipelines.support import ROOT


def image_folder(root: Path, train: int = 6, val: int = 3) -> Path:
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for label, name in enumerate(("ant", "bee")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(100 * label, 100 * label + 100, (40, 30 + i, 3), np.uint8)
                kind, mode = (
                    ("PNG", None),
                    ("JPEG", None),
                    ("PNG", "L"),
                    ("PNG", "RGBA"),
                    ("JPEG", "CMYK"),
                    ("GIF", "P"),
                )[i]
                (folder / f"{i}.{kind.lower()}").write_bytes(file_bytes(pixels, kind, mode))
    return root


def test_imagefolder(tmp_path: Path) -> None:
    source = image_folder(tmp_path / "images")
    dataset = convert("imagefolder", source, tmp_path / "out", image_size=16, rows_per_shard=5)
    assert (dataset.encoding, dataset.shape, dataset.classes) == ("encoded", (3, 16, 16), ("ant", "bee"))
    assert dataset.mean == (0.485, 0.456, 0.406)
    assert [shard.rows for shard in dataset.shards["train"]] == [5, 5, 2]
    stored = [bytes(b.as_py()) for s in dataset.shards["train"] for b in pq.read_table(s.path)["image"]]
    assert sorted(stored) == sorted(p.read_bytes() for p in (source / "train").rglob("*.*"))
    images, labels = dataset.arrays("train")
    assert images.shape == (12, 3, 16, 16)
    assert ((images.mean((1, 2, 3)) > 99) == (labels == 1)).sum() >= 10  # CMYK and palettes shift colours
    subset, subset_labels = dataset.arrays("train", 4, seed=3)
    assert sorted(subset_labels.tolist()) == [0, 0, 1, 1]
    assert all(any((image == other).all() for other in images) for image in subset)


def test_images_at_any_depth_of_a_class(tmp_path: Path) -> None:
    source = image_folder(tmp_path / "images")
    (source / "train/ant/more/yet").mkdir(parents=True)
    (source / "train/ant/.hidden").mkdir()
    for place in ("more/5.gif", "more/yet/4.jpeg", ".hidden/3.png"):
        (source / "train/ant" / Path(place).name).rename(source / "train/ant" / place)
    dataset = convert("imagefolder", source, tmp_path / "out", image_size=16)
    assert dataset.num_rows("train") == 11  # all but the hidden one


def test_grey_of_16_bits_keeps_its_levels(tmp_path: Path) -> None:
    for name in ("train/a", "test/a"):
        (tmp_path / "src" / name).mkdir(parents=True)
        Image.fromarray(np.full((16, 16), 0x4080, np.uint16)).save(tmp_path / "src" / name / "x.png")
    images, _ = convert("imagefolder", tmp_path / "src", tmp_path / "out", image_size=16).arrays("train")
    assert (images == 0x40).all()


def test_sigterm_leaves_nothing_of_a_conversion(tmp_path: Path) -> None:
    source, shard = (
        image_folder(tmp_path / "images"),
        np.random.default_rng(0).integers(0, 255, (400, 400, 3), np.uint8),
    )
    for i in range(300):
        (source / "train/ant" / f"big{i}.png").write_bytes(file_bytes(shard))
    run = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "data", "imagefolder", str(source), str(tmp_path / "out")],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not list(tmp_path.glob(".out*")):
        assert run.poll() is None
        time.sleep(0.01)
    run.terminate()
    _, errors = run.communicate(timeout=60)
    assert (run.returncode, errors.strip()) == (130, "interrupted; the same command again continues")
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_imagefolder_measured_statistics(tmp_path: Path) -> None:
    for name, value in (("train/a", 51), ("train/b", 153), ("test/a", 0)):
        (tmp_path / "src" / name).mkdir(parents=True)
        pixels = np.full((20, 20, 3), value, np.uint8)
        (tmp_path / "src" / name / "x.PNG").write_bytes(file_bytes(pixels))
    dataset = convert("imagefolder", tmp_path / "src", tmp_path / "out", image_size=8, statistics="measured")
    assert dataset.mean == pytest.approx([0.4] * 3)
    assert dataset.std == pytest.approx([0.2] * 3)


def test_bad_image_folders(tmp_path: Path) -> None:
    out, source = tmp_path / "out", tmp_path / "src"
    assert "no such folder" in line(convert, "imagefolder", source, out)
    assert "needs a source" in line(convert, "imagefolder", "", out)
    source.mkdir()
    assert "has no train/" in line(convert, "imagefolder", source, out)
    (source / "train").mkdir()
    assert "has no val/ or test/" in line(convert, "imagefolder", source, out)
    (source / "val").mkdir()
    assert "has no folder; each class" in line(convert, "imagefolder", source, out)
    (source / "train" / "ant").mkdir()
    assert f"{source / 'train' / 'ant'}: has no image" in line(convert, "imagefolder", source, out)
    good = file_bytes(np.arange(768, dtype=np.uint8).reshape(16, 16, 3), "JPEG")
    (source / "train" / "ant" / "a.jpg").write_bytes(good)
    assert f"{source / 'val'}: has no image in any folder" in line(convert, "imagefolder", source, out)
    (source / "val" / "cat").mkdir()
    assert "class 'cat' has no folder in train" in line(convert, "imagefolder", source, out)
    (source / "val" / "cat").rename(source / "val" / "ant")
    (source / "val" / "ant" / "b.jpg").write_bytes(good)
    for data in (
        good[:-200],
        b"not an image",
        b"",
        b"\x89PNG\r\n\x1a\n" + b"\0" * 50,
        file_bytes(np.zeros((9, 9, 3), np.uint8))[:-30],
    ):
        (source / "train" / "ant" / "broken.jpg").write_bytes(data)
        assert f"{source / 'train' / 'ant' / 'broken.jpg'}: the image does not decode" in line(
            convert, "imagefolder", source, out
        )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["src"]
    (source / "train" / "ant" / "broken.jpg").unlink()
    convert("imagefolder", source, out)


def test_held_out_files_of_an_imagefolder(tmp_path: Path) -> None:
    source = image_folder(tmp_path / "source", train=6)
    dataset = convert("imagefolder", source, tmp_path / "out", image_size=32, held_out=4)
    assert [dataset.num_rows(split) for split in SPLITS] == [8, 6, 4]
    assert np.bincount(dataset.arrays("held_out")[1]).tolist() == [2, 2]
    every = sorted(a.tobytes() for split in ("train", "held_out") for a in dataset.arrays(split)[0])
    plain = convert("imagefolder", source, tmp_path / "plain", image_size=32)
    assert every == sorted(a.tobytes() for a in plain.arrays("train")[0])
