"""Ancestor, templates and sizes that were replaced by other valid ones: never used for what a record names."""

from pathlib import Path
from typing import Any, cast

import pytest

from pipelines.ancestors.record import kept_ancestor
from pipelines.runtime.workspace import Workspace
from pipelines.stages import distil, initialise
from tests.wave.models import exact, spec_of, tiny
from wave import Family, TargetSpec, Templates, WaveError, condense


def templates(count: int) -> Templates:
    model = tiny()
    auxiliary = condense(model, spec_of(model, count=count), size=TargetSpec(16, 1))
    return Templates.of(auxiliary, Family.of(model), exact(), {"metrics": {"accuracy": 0.5}})


def test_replaced_templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(tmp_path)
    digest = templates(4).save(workspace.templates)
    record = workspace.finish(workspace.templates, "key", {"accuracy": 0.5, "digest": digest})
    monkeypatch.setattr(distil, "key", lambda *_: "key")
    nothing = cast(Any, None)
    assert distil.distil(nothing, nothing, workspace, {}) == record
    templates(2).save(workspace.templates)
    with pytest.raises(WaveError, match="templates has changed since it was made; put its files back"):
        distil.distil(nothing, nothing, workspace, {})


def test_templates_replaced_between_the_stages(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    digest = templates(4).save(workspace.templates)
    templates(2).save(workspace.templates)

    class Asked:
        def target_specs(self) -> list[TargetSpec]:
            return []

    with pytest.raises(WaveError, match="templates was replaced while this ran"):
        initialise.initialise(cast(Any, Asked()), cast(Any, None), workspace, {"digest": digest}, cast(Any, None))


def test_a_replaced_ancestor(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.ancestor.mkdir()
    (workspace.ancestor / "model.safetensors").write_bytes(b"one")
    workspace.finish(workspace.ancestor, "key", {})
    (workspace.ancestor / "model.safetensors").write_bytes(b"two")
    with pytest.raises(WaveError, match="ancestor has changed since it was made"):
        kept_ancestor(workspace, "key")
