"""sha256 of files' contents; of large ones it is kept beside them, so that they are read once and not in every run."""

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wave.errors import WaveError
from wave.json_file import JsonError, read_json

from pipelines.runtime.files import write_text

NAME = ".digests.json"
WORTH_BYTES = 64 << 20
"""Files of less than this in all are read each time: a fraction of a second."""
SETTLED_SECONDS = 2.0
"""A file changed so lately could change again without a new time of change, so what it holds is not kept."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


def digests(paths: Sequence[Path]) -> list[bytes]:
    """The files' sha256; ``paths`` are of one folder. Raises OSError when one cannot be read.

    A kept digest holds while size, time of modification and time of change of the file's entry (which no copying tool
    can set) are the same. A folder that cannot be written costs only the reading.
    """
    kept = _load(paths[0].parent / NAME)
    found = {path.name: _entry(path, kept.get(path.name)) for path in paths}
    lasting = {name: entry for name, entry in found.items() if entry["stamp"]}
    worth = sum(path.stat().st_size for path in paths) >= WORTH_BYTES
    if worth and any(kept.get(name) != entry for name, entry in lasting.items()):
        with contextlib.suppress(OSError, WaveError):
            write_text(paths[0].parent / NAME, json.dumps({**kept, **lasting}))
    return [bytes.fromhex(entry["sha256"]) for entry in found.values()]


def _entry(path: Path, kept: Any) -> dict[str, Any]:
    """``stamp`` is empty when the file may yet change under it."""
    with path.open("rb") as file:
        now, stamp = time.time(), _stamp(file.fileno())
        if isinstance(kept, dict) and kept.get("stamp") == stamp and _SHA256.fullmatch(str(kept.get("sha256"))):
            return kept
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        settled = now - max(stamp[1:]) / 1e9 > SETTLED_SECONDS and stamp == _stamp(file.fileno())
    return {"sha256": sha256, "stamp": stamp if settled else []}


def _stamp(descriptor: int) -> list[int]:
    stat = os.fstat(descriptor)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _load(path: Path) -> dict[str, Any]:
    try:
        kept = read_json(path)
    except (OSError, JsonError):
        return {}
    return kept if isinstance(kept, dict) else {}
