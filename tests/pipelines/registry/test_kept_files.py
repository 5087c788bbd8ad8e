"""Versions whose files are gone or changed: registered again by a run, and refused when they are pulled."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest
from safetensors.torch import save_file
from torch import ones, zeros

from pipelines.ancestors import source
from pipelines.registry import query as registry
from pipelines.registry import store
from wave.errors import WaveError

ALIAS = "d032-l02"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    folder = tmp_path / "plain"
    folder.mkdir()
    (folder / "config.json").write_text('{"architecture": "vit_tiny_patch16_224"}')
    save_file({"weight": zeros(3)}, folder / "model.safetensors")
    return folder


@pytest.fixture
def family(request: pytest.FixtureRequest) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in request.node.name)


def publish(opened: store.Store, folder: Path, family: str) -> int:
    run = registry.batch_run(opened, family, family, {}, {})
    return registry.publish(opened, folder, family, ALIAS, run, {}, "", {"accuracy": 0.5})


def place(opened: store.Store, family: str) -> Path:
    """Where the registry keeps the version's files."""
    uri = opened.client().get_model_version_by_alias(family, ALIAS).source
    assert uri
    location = opened.client().get_logged_model(uri.removeprefix("models:/")).artifact_location
    return Path(unquote(location.removeprefix("file://")))


def remove_all(folder: Path) -> None:
    shutil.rmtree(folder)


def remove_one(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def cut_off(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-4])


def replace(folder: Path) -> None:
    save_file({"weight": ones(3)}, folder / "model.safetensors")


def empty(folder: Path) -> None:
    (folder / "config.json").write_bytes(b"")


@pytest.mark.parametrize("damage", [remove_all, remove_one, cut_off, replace, empty])
def test_damaged_files_are_refused_and_uploaded_again(
    opened: store.Store,
    plain: Path,
    family: str,
    tmp_path: Path,
    damage: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
):
    assert publish(opened, plain, family) == 1
    kept = place(opened, family)
    damage(kept)
    with pytest.raises(WaveError, match=rf"(config\.json|model\.safetensors).* in {re.escape(str(kept))}"):
        registry.pull(opened, family, ALIAS, tmp_path / "pulled")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain"]
    capsys.readouterr()
    assert publish(opened, plain, family) == 1
    assert re.search(r"version 1 lacked .*; uploaded again", capsys.readouterr().err)
    pulled = registry.pull(opened, family, ALIAS, tmp_path / "pulled")
    assert {p.name: p.read_bytes() for p in pulled.iterdir()} == {p.name: p.read_bytes() for p in plain.iterdir()}
    assert publish(opened, plain, family) == 1
    assert capsys.readouterr().err == "", "nothing is said where nothing is missing"


def test_a_version_that_lost_its_logged_model_is_made_again(
    opened: store.Store, plain: Path, family: str, tmp_path: Path
):
    assert publish(opened, plain, family) == 1
    uri = opened.client().get_model_version_by_alias(family, ALIAS).source
    assert uri
    opened.client().delete_logged_model(uri.removeprefix("models:/"))
    shutil.rmtree(place_of(opened, uri), ignore_errors=True)
    assert publish(opened, plain, family) == 2
    assert registry.pull(opened, family, ALIAS, tmp_path / "pulled").is_dir()


def place_of(opened: store.Store, uri: str) -> Path:
    return Path(opened.tracking_uri.removeprefix("sqlite:///")).parent / "mlartifacts/models" / uri.rpartition("/")[2]


def test_a_version_of_before_digests_were_noted(opened: store.Store, plain: Path, family: str, tmp_path: Path):
    publish(opened, plain, family)
    uri = opened.client().get_model_version_by_alias(family, ALIAS).source
    assert uri
    opened.client().delete_logged_model_tag(uri.removeprefix("models:/"), "wave.files")
    assert registry.pull(opened, family, ALIAS, tmp_path / "pulled").is_dir()
    remove_one(place(opened, family))
    with pytest.raises(WaveError, match=r"lacks model\.safetensors, which should be in /"):
        registry.pull(opened, family, ALIAS, tmp_path / "again")


def test_an_ancestor_whose_files_are_gone(opened: store.Store, plain: Path, family: str):
    """Not a message about a temporary folder."""
    publish(opened, plain, family)
    kept = place(opened, family)
    remove_all(kept)

    class Given:
        class mlflow:
            tracking_uri = opened.tracking_uri

    with pytest.raises(WaveError, match=rf"^ancestor\.source=models:/{family}/1 lacks config.json.* in {kept};"):
        source._from_registry(Given(), f"models:/{family}/1")  # type: ignore[arg-type]  # pyright: ignore
