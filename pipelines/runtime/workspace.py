"""Workspace: the folder of one run, what is in it, which parts are done for which settings, and who may write."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pipelines.runtime.files import absolute, contents, exclusive, write_text
from wave.errors import WaveError
from wave.json_file import JsonError, read_json


@dataclass(frozen=True)
class Workspace:
    """Paths of one run: ``ancestor/``, ``canonical/``, ``templates/``, ``models/<size>/``, each with a record
    ``<name>.json`` beside it, results, and Ray's own storage. A part is done when its record holds the key of the
    present settings."""

    root: Path
    origin: Path | None = None
    """The run whose ancestor this one uses, for variants; None: its own."""

    @classmethod
    def open(cls, output: str) -> "Workspace":
        """The absolute folder, made if need be; raises :class:`WaveError` when it cannot be written."""
        root = absolute(output, "output")
        try:
            root.mkdir(parents=True, exist_ok=True)
            probe = root / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise WaveError(f"output={output!r} cannot be written ({error.strerror}); choose another folder") from None
        for name in ("ancestor", "canonical", "templates", "models", "checkpoints", "ray"):
            if (root / name).exists() and not (root / name).is_dir():
                raise WaveError(f"{root / name} is a file where a run keeps a folder; remove it, or set another output")
        return cls(root)

    @property
    def ancestor(self) -> Path:
        return (self.origin or self.root) / "ancestor"

    def variant(self, name: str) -> "Workspace":
        """Another run on this one's ancestor, in a folder of its own."""
        return Workspace(self.root / "variants" / name, self.root)

    @property
    def templates(self) -> Path:
        return self.root / "templates"

    @property
    def canonical(self) -> Path:
        """The ancestor as stage 1 starts from it."""
        return self.root / "canonical"

    @property
    def ray(self) -> Path:
        return self.root / "ray"

    def model(self, name: str) -> Path:
        """The timm directory of one size."""
        return self.root / "models" / name

    def checkpoint(self, name: str) -> Path:
        """Where an unfinished stage-2 trial keeps its state."""
        return self.root / "checkpoints" / f"{name}.pt"

    def record(self, folder: Path, key: str) -> dict[str, Any] | None:
        """What was recorded when ``folder`` was finished under this key; None if it was not, or something is gone."""
        data = self.noted(folder)
        whole = data.get("key") == key and all((folder / f).is_file() for f in data.get("files", ()))
        return data if whole else None

    def kept(self, folder: Path, key: str) -> dict[str, Any] | None:
        """:meth:`record` of what cost a training; raises :class:`WaveError` when the files are not those it names."""
        record = self.record(folder, key)
        if record is not None and self.changed(folder, record):
            raise WaveError(f"{folder} has changed since it was made; put its files back, or remove it and run again")
        return record

    def noted(self, folder: Path) -> dict[str, Any]:
        """What was recorded when ``folder`` was finished last, under any key; empty if nothing was."""
        try:
            data = read_json(self._record_path(folder))
        except (OSError, JsonError):
            return {}
        return cast(dict[str, Any], data) if isinstance(data, dict) else {}

    def finish(self, folder: Path, key: str, record: Mapping[str, Any]) -> dict[str, Any]:
        """Record that ``folder`` is done; call it after its files are in place."""
        data = {"key": key, "files": contents(folder), **record}
        write_text(self._record_path(folder), json.dumps(data, indent=2) + "\n")
        return data

    @staticmethod
    def changed(folder: Path, record: Mapping[str, Any]) -> bool:
        """Whether a folder's files are others than when ``record`` was made."""
        return record.get("files") != contents(folder)

    def forget(self, folder: Path) -> None:
        """``folder`` is no longer done."""
        self._record_path(folder).unlink(missing_ok=True)

    @staticmethod
    def _record_path(folder: Path) -> Path:
        return folder.with_name(f"{folder.name}.json")

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """One writer at a time; raises :class:`WaveError` while another process runs in this folder."""
        with exclusive(self.root / ".lock", f"is writing to {self.root}; wait for it, or set another output"):
            yield
