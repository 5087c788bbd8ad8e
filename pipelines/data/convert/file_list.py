"""A CSV, TSV, JSON or JSON Lines list of files and labels, beside the images or in the folder of one split."""

import csv
import os
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipelines.data.convert.listing import EXTENSIONS, shown
from pipelines.data.convert.samples import Found, Sample
from pipelines.data.convert.text_labels import Labelled, numbered
from pipelines.data.split_names import TEST, TRAIN, find_splits
from wave.errors import WaveError
from wave.json_file import JsonError, parse_json

_FILE = (
    *("file", "file_name", "filename", "filepath", "path", "image", "image_path", "img"),
    *("image_id", "imageid", "id", "name"),
)
_LABEL = ("label", "labels", "class", "class_name", "category", "target", "predictionstring", "y")
_SPLIT = ("split", "set", "subset", "fold")
_KINDS = (".csv", ".tsv", ".json", ".jsonl")
_MOST_BYTES = 1 << 30


def read_list(source: Path) -> Found:
    """A list with a column of splits or none, or a folder of lists called after their splits.

    File names begin at the list's folder and may lack their ending. Raises :class:`WaveError` that names list and row.
    """
    if source.is_dir():
        lists = {path.stem: path for path in sorted(source.iterdir()) if path.suffix.lower() in _KINDS}
        splits, other = find_splits(lists)
        if "train" not in splits:
            raise WaveError(
                f"{shown(source)}: has no train.csv (or .tsv, .json, .jsonl); or name one list with a split column"
            )
        by_split = {split: [item for _, item in _items(path)] for split, path in splits.items()}
    else:
        rows: dict[str, list[Labelled]] = {}
        for split, item in _items(source):
            rows.setdefault(split or "train", []).append(item)
        if strange := set(rows) - {*TRAIN, *TEST}:
            raise WaveError(f"{shown(source)}: has a split {min(strange)!r}; known: {', '.join(TRAIN + TEST)}")
        by_split, other = find_splits(rows)
    found = numbered(by_split.get("train", []), by_split.get("test", []), shown(source))
    found.notes += [f"{shown(source)}: {note}" for note in other]
    return found


def _items(path: Path) -> Iterable[tuple[str, Labelled]]:
    files = _Files(path.parent)
    for number, row in _rows(path):
        where = f"{shown(path)}: row {number}"
        fields = {str(key).strip().lower(): value for key, value in row.items() if key is not None}
        name, label = _field(fields, _FILE, "file", where), _field(fields, _LABEL, "label", where)
        if "predictionstring" in fields:  # Kaggle's: class and box, again and again; the image's class is the first
            label = str(label).split()[0]
        split = str(next((fields[key] for key in _SPLIT if fields.get(key)), "")).strip().lower()
        yield split, Labelled(Sample(files.find(str(name).strip(), where), -1), label)


def _field(fields: Mapping[str, Any], known: tuple[str, ...], what: str, where: str) -> str | int:
    key = next((key for key in known if key in fields), None)
    if key is None:
        raise WaveError(f"{where} has no column of a {what} ({', '.join(known)}); columns: {', '.join(fields)}")
    value = fields[key]
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise WaveError(f"{where} has no {what}")
    return value


def _rows(path: Path) -> Iterable[tuple[int, dict[str, Any]]]:
    """Rows and their numbers, from 0."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise WaveError(f"{shown(path)}: has more than {_MOST_BYTES} bytes; split it")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise WaveError(f"{shown(path)}: cannot be read: {error.strerror}; name a list") from None
    except UnicodeDecodeError:
        raise WaveError(f"{shown(path)}: is not UTF-8; save it so") from None
    kind = path.suffix.lower()
    if kind not in _KINDS:
        raise WaveError(f"{shown(path)}: a list ends in {', '.join(_KINDS)}")
    try:
        if kind == ".jsonl":
            rows: Any = [parse_json(line, f"line {n}") for n, line in enumerate(text.splitlines(), 1) if line.strip()]
        elif kind == ".json":
            rows = parse_json(text, path.name)
            if isinstance(rows, dict):  # {"a.jpg": 3}
                rows = [{"file": name, "label": label} for name, label in rows.items()]
        else:
            rows = list(csv.DictReader(text.splitlines(), delimiter="\t" if kind == ".tsv" else ","))
    except (JsonError, csv.Error) as error:
        raise WaveError(f"{shown(path)}: {error}") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or not rows:
        raise WaveError(f"{shown(path)}: holds no rows of files and labels")
    return enumerate(rows)


class _Files:
    """Finds files by the names in a list: as they are, in Unicode's other form, or without their ending."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names: dict[str, dict[str, str]] = {}

    def find(self, name: str, where: str) -> str:
        if os.path.isabs(name) or ".." in Path(name).parts:
            raise WaveError(f"{where} names {name!r}; names begin at the list's folder and stay in it")
        folder, base = os.path.split(name)
        names = self._names(str(self.root / folder))
        wanted = unicodedata.normalize("NFC", base)
        found = names.get(wanted) or next((names[wanted + end] for end in EXTENSIONS if wanted + end in names), None)
        if found is None:
            raise WaveError(f"{where} names {name!r}, which is not in {shown(self.root)}")
        return os.path.join(self.root, folder, found)

    def _names(self, folder: str) -> dict[str, str]:
        if folder not in self.names:
            try:
                entries = os.listdir(folder)
            except OSError:
                entries = []
            known: dict[str, str] = {}
            for entry in sorted(entries):  # names as they are come before those that differ by capital letters
                stem, ending = os.path.splitext(unicodedata.normalize("NFC", entry))
                known.setdefault(stem + ending.lower(), entry)
            self.names[folder] = known | {unicodedata.normalize("NFC", entry): entry for entry in entries}
        return self.names[folder]
