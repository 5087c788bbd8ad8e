"""`data list` and `data webdataset`: lists of files and tar shards, in the forms that people have."""

import io
import json
import tarfile
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.config.data import Data
from pipelines.data.convert.convert import convert, prepared
from pipelines.data.dataset import Dataset
from tests.pipelines.image_data import file_bytes, line


def picture(level: int) -> bytes:
    return file_bytes(np.full((8, 8, 3), level, np.uint8))


def converted(kind: Any, source: Path, **options: Any) -> Dataset:
    return convert(kind, source, source.parent / f"out{len(list(source.parent.iterdir()))}", image_size=8, **options)


def levels(dataset: Dataset, split: Any = "train") -> dict[int, str]:
    images, labels = dataset.arrays(split)
    return {int(image[0, 0, 0]): dataset.classes[label] for image, label in zip(images, labels, strict=True)}


# --- lists ---


def images(root: Path, *names: str) -> Path:
    """Pictures of the levels 0, 10, 20 ... by these names."""
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(10 * i))
    return root


ROWS = [("a.png", "cat", "train"), ("b.png", "dog", "train"), ("x/c.png", "dog", "val")]


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl"])
def test_a_list_with_a_column_of_splits(kind: str, tmp_path: Path) -> None:
    source = images(tmp_path / "src", "a.png", "b.png", "x/c.png") / f"all.{kind}"
    dicts = [dict(zip(("filename", "label", "split"), row, strict=True)) for row in ROWS]
    between = "\t" if kind == "tsv" else ","
    texts = {"json": json.dumps(dicts), "jsonl": "\n".join(map(json.dumps, dicts))}
    table = "\n".join(between.join(row) for row in (("filename", "label", "split"), *ROWS))
    source.write_text("\ufeff" * (kind == "csv") + texts.get(kind, table))
    dataset = converted("list", source)
    assert dataset.classes == ("cat", "dog")
    assert (levels(dataset), levels(dataset, "test")) == ({0: "cat", 10: "dog"}, {20: "dog"})


def test_a_flat_folder_and_kaggles_list(tmp_path: Path) -> None:
    """Names without their ending; class and boxes in one column; no split."""
    source = images(tmp_path / "src", "ILSVRC_1.JPEG", "ILSVRC_2.JPEG", "ILSVRC_3.JPEG", "ILSVRC_4.JPEG") / "val.csv"
    rows = ["ILSVRC_1,n02 1 2 3 4 n02 1 1 2 2", "ILSVRC_2,n01 5 6 7 8", "ILSVRC_3,n02 1 1 1 1", "ILSVRC_4,n01 1 1 1 1"]
    source.write_text("\n".join(["ImageId,PredictionString", *rows]))
    dataset = converted("list", source, test_fraction=0.5)
    assert {**levels(dataset), **levels(dataset, "test")} == {0: "n02", 10: "n01", 20: "n02", 30: "n01"}
    assert "--test-fraction" in line(converted, "list", source)


def test_a_folder_of_lists_and_numbers_as_labels(tmp_path: Path) -> None:
    source = images(tmp_path / "src", "a.png", "b.png", "c.png")
    (source / "train.csv").write_text("file,label\na.png,11\nb.png,2\n")
    (source / "valid.json").write_text(json.dumps({"c.png": 3}))
    settings = Data(path=str(tmp_path / "out"), convert="list", source=str(source), image_size=8)
    dataset = prepared(settings)
    assert dataset.classes == tuple(map(str, range(12)))
    assert (levels(dataset), levels(dataset, "test")) == ({0: "11", 10: "2"}, {20: "3"})


def test_names_in_a_list_and_on_disk_in_other_forms(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    source = images(tmp_path / "src", f"{composed}.png", "b.png")
    (source / "train.csv").write_text(f"file,label\n{apart}.png,{apart}\nb.png,{composed}\n")
    (source / "val.csv").write_text(f"file,label\nb.png,{apart}\n")
    assert converted("list", source).classes == (composed,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.png,\n", "row 0 has no label"),
        ("file,label\na.png,0\nz.png,1\n", "row 1 names 'z.png', which is not in"),
        ("file,label\n../a.png,1\n", "row 0 names '../a.png'; names begin at the list's folder"),
        ("file,label\n/etc/passwd,1\n", "row 0 names '/etc/passwd'; names begin at the list's folder"),
        ("picture,label\na.png,1\n", "row 0 has no column of a file"),
        ("file,label,split\na.png,1,odd\n", "has a split 'odd'"),
        ("file,label\n", "holds no rows"),
        ("file,label\na.png,99999999999\n", "has a label of 99999999999"),
    ],
)
def test_lists_that_are_wrong_are_one_line(text: str, message: str, tmp_path: Path) -> None:
    source = images(tmp_path / "src", "a.png") / "all.csv"
    source.write_text(text)
    assert message in line(converted, "list", source)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["src"]


# --- tar shards ---


def tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("label", [("cls", b"2"), ("cls", b"2\n"), ("json", b'{"label": 2}'), ("json", b'{"cls": 2}')])
def test_tar_shards_with_numbers(label: tuple[str, bytes], tmp_path: Path) -> None:
    source = tmp_path / "src"
    ending, data = label
    tar(source / "train-000000.tar", {"a.jpg": picture(0), f"a.{ending}": data, "b.cls": b"0", "b.png": picture(10)})
    tar(source / "train-000001.tar", {"d/a.png": picture(20), "d/a.cls": b"1"})
    tar(source / "val-000000.tar", {"./c.png": picture(30), "./c.cls": b"1"})
    dataset = converted("webdataset", source)
    assert dataset.classes == ("0", "1", "2")
    assert levels(dataset) == {0: "2", 10: "0", 20: "1"} and levels(dataset, "test") == {30: "1"}
    assert sorted(path.name for path in source.iterdir()) == ["train-000000.tar", "train-000001.tar", "val-000000.tar"]


def test_tar_shards_with_names_and_without_a_test_split(tmp_path: Path) -> None:
    source, lines = tmp_path / "src", list[str]()
    members = {
        f"{i}.{kind}": data for i in range(8) for kind, data in (("png", picture(i)), ("txt", b"ab"[i % 2 : i % 2 + 1]))
    }
    tar(source / "00000.tar", members | {"._0.png": b"x", "0.mp3": b"x"})
    dataset = converted("webdataset", source, test_fraction=0.25, progress=lines.append)
    assert dataset.classes == ("a", "b") and dataset.num_rows("test") == 2
    assert lines[0] == f"{source}: 2 files left out: 1 ._*, 1 .mp3"


def test_tar_shards_that_are_wrong_are_one_line(tmp_path: Path) -> None:
    source = tmp_path / "src"
    shard = source / "train-0.tar"
    for members, message in (
        ({"a.png": picture(0)}, "sample 'a' has no label"),
        ({"a.cls": b"0"}, "sample 'a' has no image"),
        ({"a.png": picture(0), "a.json": b'{"x": 1}'}, "'a.json' has no label"),
        ({"a.png": picture(0), "a.json": b"{"}, "train-0.tar"),
        ({"a.png": b"bad", "a.cls": b"0"}, "train-0.tar: a.png: the image does not decode"),
        ({"a.png": picture(0), "a.jpg": picture(0), "a.cls": b"0"}, "sample 'a' has two images"),
        ({"a.png": picture(0), "a.cls": b"\xff"}, "'a.cls' is not UTF-8"),
    ):
        tar(shard, members)
        tar(source / "val-0.tar", {"b.png": picture(0), "b.cls": b"0"})
        assert message in line(converted, "webdataset", source), message
    tar(shard, {"a.cls": b"0", "a.png": picture(0) * 50})
    shard.write_bytes(shard.read_bytes()[:3000])
    assert "train-0.tar" in line(converted, "webdataset", source)
    shard.write_bytes(b"not a tar" * 200)
    assert "is no tar file that can be read" in line(converted, "webdataset", source)
    for path in source.iterdir():
        path.rename(f"{path}.gz")
    assert "is compressed; unpack it to a .tar" in line(converted, "webdataset", source)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["src"]


def test_links_and_names_that_lead_out_of_a_tar_are_never_followed(tmp_path: Path) -> None:
    source = tmp_path / "deep/src"
    source.mkdir(parents=True)
    with tarfile.open(source / "train-0.tar", "w") as file:
        link = tarfile.TarInfo("a.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
        for name, data in (("../../b.png", picture(0)), ("../../b.cls", b"0")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    tar(source / "val-0.tar", {"b.png": picture(0), "b.cls": b"0"})
    assert converted("webdataset", source).num_rows("train") == 1
    assert sorted(path.name for path in tmp_path.rglob("b.png")) == []
