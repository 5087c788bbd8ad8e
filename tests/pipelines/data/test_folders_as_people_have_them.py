"""Folders as people have them: class order, junk, links, names in Unicode's two forms, splits by other names, bad files."""

import os
import sys
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from timm.data.readers.reader_image_folder import find_images_and_targets

from pipelines.cli.main import main
from pipelines.config.data import Data
from pipelines.data.convert.convert import convert, prepared
from pipelines.data.dataset import Dataset, open_dataset
from tests.pipelines.image_data import file_bytes, line


def picture(level: int = 0) -> bytes:
    return file_bytes(np.full((8, 8, 3), level, np.uint8))


def tree(root: Path, files: Mapping[str, bytes | int]) -> Path:
    """``files``: path -> bytes, or the level of a grey picture."""
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture(data) if isinstance(data, int) else data)
    return root


def plain(root: Path) -> Path:
    return tree(root, {f"{split}/{name}/1.png": 0 for split in ("train", "val") for name in ("ant", "bee")})


def converted(source: Path, lines: list[str] | None = None, **options: object) -> Dataset:
    says = lines.append if lines is not None else (lambda line: None)
    out = source.parent / f"out{len(list(source.parent.iterdir()))}"
    return convert("imagefolder", source, out, image_size=8, progress=says, **options)  # type: ignore[arg-type]


def levels(dataset: Dataset, split: str = "train") -> dict[int, int]:
    """Level of a picture -> its label."""
    images, labels = dataset.arrays(split)  # type: ignore[arg-type]
    return {int(image[0, 0, 0]): int(label) for image, label in zip(images, labels, strict=True)}


# --- the order of classes ---


@pytest.mark.parametrize(
    "names",
    [[str(n) for n in range(12)], ["a10", "a2", "A1", "b"], ["Zebra", "ant", "Bee"], ["x1y10", "x1y9", "x01y1", "x"]],
)
def test_classes_are_in_the_order_of_timms_reader(names: list[str], tmp_path: Path) -> None:
    source = tree(tmp_path / "src", {f"{split}/{n}/1.png": 7 for split in ("train", "val") for n in names})
    wanted = find_images_and_targets(str(source / "train"), types=[".png"])[1]
    dataset = converted(source)
    assert {name: dataset.classes.index(name) for name in names} == wanted


def test_labels_follow_the_order_of_classes(tmp_path: Path) -> None:
    source = tree(tmp_path / "src", {f"{split}/{n}/1.png": 20 * n for split in ("train", "val") for n in range(12)})
    for split in ("train", "test"):
        assert levels(converted(source), split) == {20 * n: n for n in range(12)}


@pytest.mark.parametrize("name", ["\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT FIVE}", "1" * 4000])
def test_odd_numbers_in_names_are_no_error(name: str, tmp_path: Path) -> None:
    from pipelines.data.natural_order import natural_order

    assert natural_order([name, "b"])[0] == name or name == "\N{SUPERSCRIPT TWO}"


# --- junk, and what else is no image ---


def test_junk_is_neither_class_nor_image_and_is_counted(tmp_path: Path) -> None:
    source = plain(tmp_path / "src")
    junk = b"\x00\x05\x16\x07"
    tree(source, {"train/ant/._1.png": junk, "train/ant/.DS_Store": junk, "train/Thumbs.db": junk})
    tree(source, {"train/__MACOSX/ant/._1.png": junk, "val/@eaDir/1.png/SYNO.jpg": junk, "val/ant/@eaDir/a.jpg": junk})
    tree(source, {"train/bee/Desktop.ini": junk, ".DS_Store": junk, "__MACOSX/x/._1.png": junk})
    (source / "train/lost+found").mkdir()
    lines: list[str] = []
    dataset = converted(source, lines)
    assert (dataset.classes, dataset.num_rows("train"), dataset.num_rows("test")) == (("ant", "bee"), 2, 2)
    assert lines[0] == (
        f"{source}: 7 files left out: 2 in @eaDir, 1 .DS_Store, 1 ._*, 1 Desktop.ini, 1 Thumbs.db, 1 in __MACOSX"
    )


def test_unknown_endings_are_counted(tmp_path: Path) -> None:
    source = plain(tmp_path / "src")
    files = [f"train/ant/{i}.heic" for i in range(3)] + [f"val/bee/{i}.HEIC" for i in range(2)]
    files += ["train/bee/a.jfif", "train/bee/b.jfif", "train/ant/noending"]
    lines: list[str] = []
    converted(tree(source, {name: b"x" for name in files}), lines)
    assert lines[0] == f"{source}: 8 files left out: 5 .heic, 2 .jfif, 1 without an ending"
    run = CliRunner().invoke(main, ["data", "imagefolder", str(source), str(tmp_path / "cli"), "--image-size", "8"])
    assert run.exit_code == 0 and "8 files left out" in run.output


def test_nothing_is_said_of_a_clean_folder(tmp_path: Path) -> None:
    lines: list[str] = []
    converted(plain(tmp_path / "src"), lines)
    assert [line for line in lines if "written" not in line] == []


def test_an_image_outside_a_class_and_a_pipe_are_counted(tmp_path: Path) -> None:
    source = tree(plain(tmp_path / "src"), {"train/1.png": 1})
    os.mkfifo(source / "train/ant/pipe.png")  # to read it would wait for ever
    lines: list[str] = []
    converted(source, lines)
    assert lines[0].endswith("2 files left out: 1 not a file, 1 outside a class's folder")


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    source = tree(plain(tmp_path / "src"), {"train/ant/more/1.png": 1})
    for path in (tmp_path, source, *source.rglob("*")):
        path.chmod(0o755)
    for path in tmp_path.parents:
        if path.stat().st_uid == os.getuid() and len(path.parts) > 2:
            path.chmod(path.stat().st_mode | 0o055)
    (source / "train/ant/more").chmod(0o700)
    child = os.fork()
    if not child:  # another user, whom modes stop
        os.setgid(65534)
        os.setuid(65534)
        from pipelines.data.convert.imagefolder import read_image_folder
        from wave.errors import WaveError

        try:
            read_image_folder(source)
        except WaveError as error:
            os._exit(0 if str(error) == f"{source / 'train/ant/more'}: cannot be read: Permission denied" else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# --- links ---


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    source = plain(tmp_path / "src")
    tree(tmp_path / "elsewhere", {"a.png": 10, "deep/b.png": 20})
    (source / "train/ant/more").symlink_to(tmp_path / "elsewhere")
    (source / "train/ant/again").symlink_to(tmp_path / "elsewhere/deep")
    (source / "train/ant/self").symlink_to(".")
    (source / "train/bee/up").symlink_to("../..")
    (source / "train/cat").symlink_to(tmp_path / "elsewhere")
    tree(source, {"val/cat/1.png": 3})
    lines: list[str] = []
    dataset = converted(source, lines)
    counts = np.bincount(dataset.arrays("train")[1]).tolist()
    assert counts == [3, 1, 2]
    assert lines[0].endswith("3 files left out: 3 link to a folder above or read already")


def test_a_linked_file_is_read_and_a_broken_link_named(tmp_path: Path) -> None:
    source = plain(tmp_path / "src")
    (source / "train/ant/2.png").symlink_to(source / "train/ant/1.png")
    assert converted(source).num_rows("train") == 3
    (source / "train/ant/3.png").symlink_to("nowhere.png")
    assert line(converted, source) == f"{source / 'train/ant/3.png'}: cannot be read: No such file or directory"


def test_train_and_val_that_are_one_folder_are_refused(tmp_path: Path) -> None:
    source = tree(tmp_path / "src", {"train/ant/1.png": 1})
    (source / "val").symlink_to("train")
    assert "val: is the same folder as train" in line(converted, source)


# --- names ---


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems know only one form")
def test_names_in_both_forms_of_unicode_are_one_class(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    source = tree(tmp_path / "src", {f"train/{composed}/1.png": 1, f"train/{apart}/2.png": 2, f"val/{apart}/1.png": 3})
    dataset = converted(source)
    assert dataset.classes == (composed,)
    assert (dataset.num_rows("train"), dataset.num_rows("test")) == (2, 1)


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    source = plain(tmp_path / "src")
    image = os.fsencode(source / "train/ant") + b"/caf\xe9.png"
    Path(os.fsdecode(image)).write_bytes(picture(9))
    assert converted(source).num_rows("train") == 3
    Path(os.fsdecode(image)).write_bytes(b"x")
    assert line(converted, source).startswith(f"{source}/train/ant/caf\\xe9.png: the image does not decode")
    run = CliRunner().invoke(main, ["data", "imagefolder", str(source), str(tmp_path / "out")])
    assert run.exit_code == 2 and "caf\\xe9.png" in run.output
    os.unlink(image)
    os.rename(source / "val/bee", os.fsencode(source / "val") + b"/b\xe9e")
    assert line(converted, source) == f"{source}/val/b\\xe9e: the name of this class is not UTF-8; rename it"


# --- splits ---


@pytest.mark.parametrize("name", ["val", "validation", "valid", "eval", "test", "Validation"])
def test_a_split_by_any_usual_name(name: str, tmp_path: Path) -> None:
    source = plain(tmp_path / "src")
    (source / "val").rename(source / name)
    assert converted(source).num_rows("test") == 2


def test_of_two_splits_to_test_on_one_is_read_and_said(tmp_path: Path) -> None:
    source = tree(plain(tmp_path / "src"), {"test/ant/1.png": 1})
    lines: list[str] = []
    converted(source, lines)
    assert lines[0] == f"{source}: test is not read; the test split is val"


@pytest.mark.parametrize("inside", ["train/", ""])
def test_a_share_of_the_training_images_to_test_on(inside: str, tmp_path: Path) -> None:
    files = {f"{inside}{name}/{i}.png": 100 * n + i for n, name in enumerate(("ant", "bee")) for i in range(20)}
    source = tree(tmp_path / "src", files)
    assert "has no val/ or test/" in line(converted, source)
    assert "--test-fraction 0.1" in line(converted, source)
    first, again = converted(source, test_fraction=0.2), converted(source, test_fraction=0.2)
    assert first.digest == again.digest and first.meta.test_fraction == 0.2
    assert np.bincount(first.arrays("test")[1]).tolist() == [4, 4]
    train, test = set(levels(first)), set(levels(first, "test"))
    assert len(train) == 32 and not train & test and len(train | test) == 40
    held = converted(source, test_fraction=0.2, held_out=2)
    assert set(levels(held, "test")) == test and held.num_rows("held_out") == 2
    settings = Data(path=str(first.path), convert="imagefolder", source="x", image_size=8, test_fraction=0.1)
    assert "was converted with test_fraction=0.2, not data.test_fraction=0.1" in line(prepared, settings)


def test_a_share_where_there_are_images_to_test_on(tmp_path: Path) -> None:
    assert "leave it out" in line(converted, plain(tmp_path / "src"), test_fraction=0.1)


# --- images that do not decode ---


def test_as_many_bad_images_as_are_allowed_are_left_out(tmp_path: Path) -> None:
    source = tree(plain(tmp_path / "src"), {"train/ant/bad.png": b"x", "val/ant/bad.png": picture()[:40]})
    assert f"{source / 'train/ant/bad.png'}: the image does not decode" in line(converted, source)
    message = line(converted, source, skip_bad=1)
    assert message.startswith(f"{source}: 2 images do not decode, data.skip_bad=1 allows fewer; {source / 'train'}")
    lines: list[str] = []
    dataset = converted(source, lines, skip_bad=2)
    assert dataset.num_rows("train") == 2 and dataset.num_rows("test") == 2
    assert lines[0].startswith(f"left out: {source / 'train/ant/bad.png'}: the image does not decode")
    assert f"{source}: 2 images left out that do not decode; data.skip_bad=2" in lines
    assert open_dataset(dataset.path).meta.skipped == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["src", dataset.path.name])
    tree(source, {"train/bee/1.png": b"x"})
    assert "no training image of class 'bee' decodes" in line(converted, source, skip_bad=9)
