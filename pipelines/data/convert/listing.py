"""Which files of a class's folder are images; everything else is counted, never dropped without a word."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from wave.errors import WaveError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
JUNK = frozenset(
    "__macosx @eadir #recycle @recycle $recycle.bin lost+found thumbs.db ehthumbs.db desktop.ini __pycache__".split()
    + ["system volume information", "icon\r"]
)
"""Names, in small letters, that systems and programs leave in folders of ours; so are all that begin with a dot."""

LeftOut = Counter[str]
"""What was left out -> how often: an ending, a name, or a reason."""


def is_junk(name: str) -> bool:
    """Whether a file or folder is a system's own: neither a class nor an image."""
    return name.startswith(".") or name.lower() in JUNK


def images_in(folders: Iterable[Path], left_out: LeftOut) -> list[str]:
    """Paths of the images in ``folders``, at any depth, sorted; what is none is counted in ``left_out``.

    Links to folders are followed, each folder is entered once, and none of those above. Raises :class:`WaveError`
    for a folder that cannot be read.
    """
    found: list[str] = []
    real, linked = [str(folder) for folder in folders], list[str]()
    entered = {_identity(str(above)) for folder in real for above in Path(folder).resolve().parents}
    while real or linked:  # links last: what is left out as read already is then the link
        path = real.pop() if real else linked.pop()
        if (identity := _identity(path)) in entered:
            left_out["link to a folder above or read already"] += 1
            continue
        entered.add(identity)
        try:
            entries = sorted(os.scandir(path), key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            raise WaveError(f"{shown(path)}: cannot be read: {error.strerror}") from None
        for entry in entries:
            if entry.is_dir():
                if is_junk(entry.name):
                    left_out[f"in {entry.name}"] += sum(len(files) for _, _, files in os.walk(entry.path))
                else:
                    (linked if entry.is_symlink() else real).append(entry.path)
            elif reason := _reason(entry):
                left_out[reason] += 1
            else:
                found.append(entry.path)
    return sorted(found)


def _reason(entry: "os.DirEntry[str]") -> str:
    """Why a file is no image, or nothing. A link that leads nowhere is one: reading it says what is wrong."""
    if is_junk(entry.name):
        return "._*" if entry.name.startswith("._") else entry.name
    ending = os.path.splitext(entry.name)[1].lower()
    if ending not in EXTENSIONS:
        return ending or "without an ending"
    return "" if entry.is_file() or entry.is_symlink() and not os.path.exists(entry.path) else "not a file"


def _identity(path: str) -> tuple[int, int]:
    try:
        stat = os.stat(path)
    except OSError as error:
        raise WaveError(f"{shown(path)}: cannot be read: {error.strerror}") from None
    return stat.st_dev, stat.st_ino


def told(left_out: LeftOut) -> str:
    """One line: ``8 files left out: 5 .heic, 2 .jfif, 1 without an ending``; empty where nothing was."""
    counts = sorted(((count, what) for what, count in left_out.items() if count), key=lambda c: (-c[0], c[1]))
    total = sum(count for count, _ in counts)
    parts = ", ".join(f"{count} {what}" for count, what in counts)
    return f"{total} file{'s' if total > 1 else ''} left out: {shown(parts)}" if total else ""


def class_folders(folder: Path, left_out: LeftOut) -> dict[str, list[Path]]:
    """Class name -> its folders. Names are Unicode's composed form (NFC): folders of equal names are one class."""
    classes: dict[str, list[Path]] = {}
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise WaveError(f"{shown(folder)}: cannot be read: {error.strerror}") from None
    for entry in entries:
        if not entry.is_dir():
            left_out[_reason(entry) or "outside a class's folder"] += 1
        elif is_junk(entry.name):
            left_out[f"in {entry.name}"] += sum(len(files) for _, _, files in os.walk(entry.path))
        else:
            classes.setdefault(class_name(entry.name, shown(entry.path)), []).append(Path(entry.path))
    return classes


def class_name(name: str, where: str) -> str:
    """The name in Unicode's composed form; raises :class:`WaveError` beginning with ``where`` if it is not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise WaveError(f"{where}: the name of this class is not UTF-8; rename it") from None
    return unicodedata.normalize("NFC", name)


def shown(path: str | Path) -> str:
    """A path for a message, also where its name is not UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
