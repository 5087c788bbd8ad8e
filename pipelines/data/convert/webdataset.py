"""WebDataset: tar shards of image files with their labels beside them; only read, never unpacked to disk."""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipelines.data.convert.listing import EXTENSIONS, LeftOut, is_junk, shown, told
from pipelines.data.convert.samples import Found, Sample
from pipelines.data.convert.text_labels import Labelled, numbered
from pipelines.data.split_names import TEST, TRAIN, find_splits
from wave.errors import WaveError
from wave.json_file import JsonError, parse_json

_LABEL_KEYS = ("label", "cls", "class", "class_id", "target", "class_name")
_MOST_LABEL_BYTES = 1 << 20
"""A label, or the JSON it is in: more is another kind of file."""


class _Member(NamedTuple):
    shard: Path
    offset: int
    size: int
    name: str


def read_web_dataset(source: Path) -> Found:
    """The images of ``source``: tar files called after their split, or folders of tar files that are.

    A sample is the files of one shard with the same name up to the first dot: an image, and a label in ``.cls``,
    ``.txt`` or ``.json``. Labels are numbers, or names of classes. Raises :class:`WaveError` that names shard and sample.
    """
    if not source.is_dir():
        raise WaveError(f"{shown(source)}: no such folder; it should hold train-*.tar and val-*.tar")
    shards = sorted(path for path in source.rglob("*.tar") if not is_junk(path.name) and path.is_file())
    if not shards:
        packed = next((p for p in sorted(source.rglob("*.tar.*")) if p.is_file()), None)
        if packed:
            raise WaveError(f"{shown(packed)}: is compressed; unpack it to a .tar")
        raise WaveError(f"{shown(source)}: has no .tar; it should hold train-*.tar and val-*.tar")
    by_split: dict[str, list[Path]] = {}
    for shard in shards:
        by_split.setdefault(_split_of(shard.relative_to(source)), []).append(shard)
    unknown = by_split.pop("", [])
    if unknown and by_split:
        raise WaveError(f"{shown(unknown[0])}: is neither of train nor of a split to test on; call it train-NUMBER.tar")
    splits, other = find_splits(by_split or {"train": unknown})
    if "train" not in splits:
        raise WaveError(f"{shown(source)}: has no train-*.tar")
    left_out = LeftOut()
    labelled = {
        split: [item for shard in paths for item in _samples(shard, left_out)] for split, paths in splits.items()
    }
    found = numbered(labelled.get("train", []), labelled.get("test", []), str(source))
    found.notes += [f"{shown(source)}: {note}" for note in other]
    if line := told(left_out):
        found.notes.append(f"{shown(source)}: {line}")
    return found


def _split_of(path: Path) -> str:
    words = [word for part in path.parts for word in "".join(c if c.isalpha() else " " for c in part.lower()).split()]
    return next((word for word in words if word in TRAIN + TEST), "")


def _samples(shard: Path, left_out: LeftOut) -> Iterator[Labelled]:
    """Groups of members that follow one another with the same key."""
    key, image, label = "", None, None
    for member, tar in _members(shard):
        folder, _, base = member.name.rpartition("/")
        stem, _, ending = base.partition(".")
        if is_junk(base) or any(is_junk(part) for part in folder.split("/") if part.strip(".")):
            left_out["._*" if base.startswith("._") else base] += 1
            continue
        if (new := f"{folder}/{stem}") != key:
            yield from _whole(shard, key, image, label)
            key, image, label = new, None, None
        ending = f".{ending.lower()}"
        if ending in EXTENSIONS:
            if image is not None:
                raise WaveError(f"{shown(shard)}: sample {stem!r} has two images; keep one")
            image = _Member(shard, member.offset_data, member.size, member.name)
        elif ending in (".cls", ".json", ".txt"):
            text = _text(shard, tar, member)
            if label is None or ending == ".cls":  # which says nothing else
                label = _of_json(shard, member, text) if ending == ".json" else text
        else:
            left_out[ending if ending != "." else "without an ending"] += 1
    yield from _whole(shard, key, image, label)


def _whole(shard: Path, key: str, image: _Member | None, label: str | int | None) -> Iterator[Labelled]:
    if image is None and label is None:
        return
    if image is None or label is None:
        raise WaveError(f"{shown(shard)}: sample {key.lstrip('/')!r} has no {'image' if image is None else 'label'}")
    yield Labelled(Sample(str(shard), -1, image.offset, image.size, image.name), label)


def _members(shard: Path) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    try:
        with tarfile.open(shard, "r:") as tar:
            end = os.path.getsize(shard)
            for member in tar:
                tar.members.clear()  # it would keep them all  # pyright: ignore[reportAttributeAccessIssue]
                if not member.isreg():
                    continue
                if member.offset_data + member.size > end:
                    raise WaveError(f"{shown(shard)}: is cut short in {member.name!r}; fetch it again")
                yield member, tar
    except (tarfile.TarError, OSError, EOFError) as error:
        raise WaveError(f"{shown(shard)}: is no tar file that can be read ({error}); fetch it again") from None


def _text(shard: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    if member.size > _MOST_LABEL_BYTES:
        raise WaveError(f"{shown(shard)}: {member.name!r} has {member.size} bytes, too many for a label")
    file = tar.extractfile(member)
    assert file is not None
    try:
        return file.read().decode().strip()
    except UnicodeDecodeError:
        raise WaveError(f"{shown(shard)}: {member.name!r} is not UTF-8") from None


def _of_json(shard: Path, member: tarfile.TarInfo, text: str) -> str | int:
    try:
        data = parse_json(text, member.name)
    except JsonError as error:
        raise WaveError(f"{shown(shard)}: {error}") from None
    value = next((data[key] for key in _LABEL_KEYS if key in data), None) if isinstance(data, dict) else data
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise WaveError(f"{shown(shard)}: {member.name!r} has no label ({', '.join(_LABEL_KEYS)})")
    return value
