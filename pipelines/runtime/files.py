"""Files: written whole or not at all, locked, and listed by their contents."""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from wave.errors import WaveError


def absolute(path: str, key: str) -> Path:
    """The path from the folder where the command runs, ``~`` resolved; ``key`` is the setting that it comes from."""
    if "://" in path:
        raise WaveError(f"{key}={path!r} is a URI; give a folder: a bucket is one when it is mounted on every node")
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:  # ~ of a user that this machine does not have
        raise WaveError(f"{key}={path!r}: {str(error).rstrip('.').lower()}; write the path out") from None


def write_text(path: Path, text: str) -> None:
    """:func:`write_bytes` of text."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: "bytes | memoryview[int]") -> None:
    """Write a file whole or not at all; raises :class:`WaveError`, as for a full disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise WaveError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def contents(folder: Path) -> dict[str, str]:
    """Relative POSIX path -> sha256 in hexadecimal, of every file below ``folder``, sorted."""
    found: dict[str, str] = {}
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        with path.open("rb") as file:
            found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


@contextlib.contextmanager
def exclusive(path: Path, doing: str) -> Iterator[None]:
    """Hold the lock file ``path`` for the block. Raises :class:`WaveError` while another process holds it: that one,
    the message says, is ``doing`` something. The system lets go of the lock when its process ends, however it ends."""
    try:
        opened = path.open("a+")
    except OSError as error:
        raise WaveError(f"{path} cannot be written ({error.strerror}); set another output") from None
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise WaveError(f"another run (process {holder}) {doing}") from None
        except OSError as error:
            raise WaveError(
                f"{path}: its file system keeps no locks ({error.strerror}), and two runs could write at once; "
                "mount it with locks, or set another output"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
