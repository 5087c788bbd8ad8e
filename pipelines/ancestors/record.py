"""The record of an ancestor that is already there: its key, and whether its files are unchanged."""

import os
from typing import Any

from pipelines.config.experiment import Experiment
from pipelines.data.batches import augment_of
from pipelines.data.dataset import Dataset
from pipelines.runtime.files import absolute
from pipelines.runtime.workspace import Workspace, key_of
from wave.errors import WaveError


def ancestor_key(experiment: Experiment, dataset: Dataset) -> str:
    """What the ancestor depends on."""
    settings = experiment.ancestor
    return key_of(
        *("ancestor", settings.model_dump(mode="json"), experiment.seed, dataset.digest, _stamp(settings.source)),
        augment_of(experiment.data) if settings.source == "train" else None,
    )


def kept_ancestor(workspace: Workspace, own: str) -> dict[str, Any] | None:
    """Its record if it is there. Raises :class:`WaveError` when it is not as it was made: it cost a training."""
    folder = workspace.ancestor
    record = workspace.record(folder, own)
    if record is not None and workspace.changed(folder, record):
        raise WaveError(f"{folder} has changed since it was made; put its files back, or remove it and run again")
    return record


def _stamp(source: str) -> object:
    """What tells two states of a local source apart."""
    kind, _, rest = source.partition(":")
    if kind not in ("local-dir", "checkpoint"):
        return 0
    path = absolute(rest, "ancestor.source")
    files = [path / "model.safetensors", path / "config.json"] if kind == "local-dir" else [path]
    return [[file.stat().st_size, file.stat().st_mtime_ns] for file in files if os.path.isfile(file)]
