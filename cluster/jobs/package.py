"""What a job uploads: the code that runs and the one file that says what to do, and nothing else."""

import os
import re
import shutil
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from cluster.errors import ClusterError

CODE = ("wave", "pipelines", "pyproject.toml")
LIMIT_MIB = 50.0
_SKIPPED_FOLDERS = {"__pycache__", "runs", "mlruns", "mlartifacts", "node_modules"}
_SKIPPED_ENDINGS = (".pyc", ".pyo", ".db", ".so.tmp", "~", ".swp")
SUBMITTED = "submitted"
_EXTENDS = re.compile(r"^[ \t]*extends[ \t]*=.{0,4096}$", re.MULTILINE)


@dataclass(frozen=True)
class Pack:
    """Files to upload, as (name in the job's folder, file here, size in bytes), sorted by name."""

    files: tuple[tuple[str, Path, int], ...]

    @property
    def size(self) -> int:
        """Bytes before compression."""
        return sum(size for _, _, size in self.files)

    def copy(self, folder: Path) -> None:
        """Lay the files out below `folder`, as the job will see them."""
        for name, file, _ in self.files:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def megabytes(size: int) -> str:
    """`size` in bytes as a person reads it."""
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.1f} KiB"


def collect(root: Path, file: Path, include: Iterable[str] = (), limit_mib: float = LIMIT_MIB) -> tuple[Pack, str]:
    """The pack for running `file` from the checkout `root`, and the file's name inside it.

    Takes `CODE` and what `include` names below `root`; hidden files, caches and results stay here, and so do tests,
    data and runs, which are not named. A file from elsewhere travels as submitted/NAME, with the one that it extends.
    Raises ClusterError over `limit_mib` MiB, with the largest files.
    """
    try:
        return _collect(root.resolve(), file.resolve(), include, limit_mib)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        name = getattr(error, "filename", None) or root
        raise ClusterError(f"{str(name)[:80]!r} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _collect(root: Path, file: Path, include: Iterable[str], limit_mib: float) -> tuple[Pack, str]:
    missing = [name for name in CODE[:2] if not (root / name).is_dir()]
    if missing:
        raise ClusterError(
            f"{root} has no folder {missing[0]}/: run this from the root of a checkout, or give --root DIR"
        )
    found: dict[str, Path] = {}
    for name in (*CODE, *include):
        start = (root / name).resolve()
        if not start.is_relative_to(root):
            raise ClusterError(f"--include {name} lies outside {root}; copy it into the checkout first")
        if not start.exists():
            if name in CODE:
                continue
            raise ClusterError(f"--include {name}: there is no such file in {root}")
        for path in [start] if start.is_file() else _walk(root, start):
            found[path.relative_to(root).as_posix()] = path
    places = _places(root, file)
    inside = next(iter(places))
    found |= places
    pack = Pack(tuple((name, path, path.stat().st_size) for name, path in sorted(found.items())))
    if not pack.size <= limit_mib * 2**20:  # so that nan is no limit that all keep
        largest = sorted(pack.files, key=lambda entry: -entry[2])[:5]
        names = ", ".join(f"{name} ({megabytes(size)})" for name, _, size in largest)
        raise ClusterError(
            f"the job would upload {megabytes(pack.size)}, over the limit of {limit_mib:g} MiB; "
            f"the largest are {names}; move them out of the code or raise --limit-mib"
        )
    return pack, inside


def _places(root: Path, file: Path) -> dict[str, Path]:
    """The run's file, and after it the one that it extends, by their names in the job's folder."""
    base = _extended(file)
    files = [file] if base is None else [file, base]
    if all(one.is_relative_to(root) for one in files):
        return {one.relative_to(root).as_posix(): one for one in files}
    common = os.path.commonpath([one.parent for one in files])
    return {f"{SUBMITTED}/{one.relative_to(common).as_posix()}": one for one in files}


def _extended(file: Path) -> Path | None:
    """The file that `file` extends, if it is there. The run itself says what is wrong with its name."""
    try:
        # That line alone: the file is as large and as nested as it likes until the run has checked it.
        line = _EXTENDS.search(file.read_text(encoding="utf-8-sig"))
        name = tomllib.loads(line.group()).get("extends") if line else None
        base = (file.parent / name).resolve() if isinstance(name, str) and name else None
        return base if base is not None and base.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None


def _walk(root: Path, start: Path) -> Iterable[Path]:
    for folder, folders, names in os.walk(start):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in _SKIPPED_FOLDERS)
        for name in sorted(names):
            path = Path(folder) / name
            if name.startswith(".") or name.endswith(_SKIPPED_ENDINGS):
                continue
            if not path.resolve().is_relative_to(root):
                raise ClusterError(f"{path.relative_to(root)} links to a file outside {root}; remove it")
            if path.is_file():
                yield path


def requirements(file: Path) -> list[str]:
    """The lines of a requirements file in which everything is pinned. Raises ClusterError at the first that is not."""
    try:
        lines = [line.partition(" #")[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    kept = [line for line in lines if line and not line.startswith("#")]
    if not kept:
        raise ClusterError(f"{file} names no package; write package==version lines, or leave --requirements out")
    for line in kept:
        if not _pinned(line):
            raise ClusterError(
                f"{file}: {line!r} is not pinned; write package==version, so that every node gets the same"
            )
    return kept


def _pinned(line: str) -> bool:
    try:
        wanted = Requirement(line)
    except InvalidRequirement:
        return False
    versions = [(s.operator, s.version) for s in wanted.specifier]
    return wanted.url is None and len(versions) == 1 and versions[0][0] == "==" and "*" not in versions[0][1]
