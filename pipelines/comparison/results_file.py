"""Reading a results file and making it ready to be added to, whatever an interruption left in it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wave.errors import WaveError
from wave.json_file import JsonError, parse_json

_BEGIN = '{"method": '
"""The beginning of every line that a comparison writes."""


def make_ready(path: Path) -> None:
    """Make a results file ready to be added to; the file need not exist.

    A last line that was cut off while it was written is taken out; one that lacks its end gets it.
    Raises :class:`WaveError` for a file that cannot be written.
    """
    existed = path.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            file.seek(0)
            whole, _, last = file.read().rpartition(b"\n")
            if _is_cut_off(last.decode("utf-8", "replace")):
                file.truncate(len(whole) + 1 if whole else 0)
            elif last:
                file.write(b"\n")
        if not existed:
            path.unlink()
    except OSError as error:
        raise _unusable(path, f"cannot be written: {error.strerror}") from None


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The file's rows, none if there is no file; a last line that was cut off is not one.

    Raises :class:`WaveError` for a line that is not a result, and for a file that cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    except OSError as error:
        raise _unusable(path, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _unusable(path, "is not text") from None
    for number, line in enumerate(lines, 1):
        if number == len(lines) and _is_cut_off(line):
            return
        try:
            row = parse_json(line, path)
            if not all(isinstance(row[k], int | float) for k in ("steps", "accuracy", "seconds")):
                raise TypeError("not a number")
            row["key"] = str(row["key"])
        except (ValueError, KeyError, TypeError):
            raise WaveError(f"{path}: line {number} is not a result; delete that line and run again") from None
        yield row


def _unusable(path: Path, why: str) -> WaveError:
    return WaveError(f"evaluate.results={path}: {why}; name another file")


def _is_cut_off(line: str) -> bool:
    """Whether a last line is the beginning of one of ours."""
    ours = line.startswith(_BEGIN) or _BEGIN.startswith(line)
    if not line or line.endswith("\n") or not ours:
        return False
    try:
        parse_json(line, "")
    except JsonError:
        return True
    return False
