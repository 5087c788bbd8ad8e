"""The record of an ancestor that is already there: its key, and whether its files are unchanged."""

import os
from typing import Any

from pipelines.ancestors.folder import weights_of
from pipelines.config.experiment import Experiment
from pipelines.data.dataset import Dataset
from pipelines.runtime.files import absolute
from pipelines.runtime.keys import IMAGE_CHANGES, key_of, settings_at
from pipelines.runtime.workspace import Workspace

ANCESTOR_DEPENDS_ON = ("seed", "ancestor")
"""Settings that decide what the ancestor is; see :mod:`pipelines.runtime.keys`."""
TRAINED_ANCESTOR_DEPENDS_ON = (*ANCESTOR_DEPENDS_ON, *IMAGE_CHANGES)
"""The same where the ancestor is trained here."""


def ancestor_key(experiment: Experiment, dataset: Dataset) -> str:
    """The key of the ancestor: its settings, the data set, and the state of a local source."""
    source = experiment.ancestor.source
    fields = TRAINED_ANCESTOR_DEPENDS_ON if source == "train" else ANCESTOR_DEPENDS_ON
    return key_of("ancestor", settings_at(experiment, fields), dataset.digest, _stamp(source))


def kept_ancestor(workspace: Workspace, own: str) -> dict[str, Any] | None:
    """Its record if it is there. Raises :class:`WaveError` when it is not as it was made: it cost a training."""
    return workspace.kept(workspace.ancestor, own)


def _stamp(source: str) -> object:
    """What tells two states of a local source apart."""
    kind, _, rest = source.partition(":")
    if kind not in ("local-dir", "checkpoint"):
        return 0
    path = absolute(rest, "ancestor.source")
    files = [weights_of(path), path / "config.json"] if kind == "local-dir" else [path]
    return [[file.stat().st_size, file.stat().st_mtime_ns] for file in files if os.path.isfile(file)]
