"""Writing folders and tensors, whole or not at all."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from .errors import WaveError

MALFORMED = (
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
)
"""What safetensors, torch and timm raise for a file that says something impossible."""


@contextlib.contextmanager
def replacing(directory: str | Path) -> Generator[Path]:
    """Give a temporary folder that takes the place of ``directory`` if the block ends well.

    Raises:
        WaveError: ``directory`` is a file.
    """
    directory = Path(directory)
    if directory.is_file():
        raise WaveError(
            f"{directory} is a file; a folder would be written there: "
            "move it or choose another place"
        )
    directory.parent.mkdir(parents=True, exist_ok=True)
    # Beside its destination, not in /tmp: only within a file system is a rename all or nothing.
    temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        if directory.exists():
            old = temporary.with_name(temporary.name + "-old")
            os.replace(directory, old)
            os.replace(temporary, directory)
            shutil.rmtree(old)
        else:
            os.replace(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def save_tensors(tensors: Mapping[str, Tensor], path: Path, shown: Path) -> None:
    """Write a safetensors file.

    Args:
        tensors: By name.
        path: Where to write.
        shown: The path to name in an error: where a person would look for the file.

    Raises:
        WaveError: It cannot be written; a full disk, for one.
    """
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    except (SafetensorError, OSError) as error:
        raise WaveError(f"{shown} cannot be written: {one_line(error)}") from None


def checksum(meta: Mapping[str, Any]) -> str:
    """Return the sha256 of a JSON object but for its own field ``checksum``."""
    rest = {name: value for name, value in meta.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def one_line(error: BaseException) -> str:
    """Return an error's class and text on one line of at most 200 characters."""
    return " ".join(f"{type(error).__name__} {error}".split())[:200]
