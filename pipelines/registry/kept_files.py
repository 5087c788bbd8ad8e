"""A version's files: which there should be, and whether the registry still has them as they were."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from pipelines.runtime.files import contents
from wave.errors import WaveError

FILES_TAG = "wave.files"
"""Of a logged model: its files' names and sha256, as JSON."""
_MODEL, _TEMPLATES = ("config.json", "model.safetensors"), ("templates.json", "templates.safetensors")
_GONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def logged_model(client: MlflowClient, source: str | None) -> LoggedModel | None:
    """The logged model behind a version, by the version's source; None if it is gone or never was."""
    try:
        return client.get_logged_model((source or "").removeprefix("models:/"))
    except MlflowException as error:
        if error.error_code not in _GONE:
            raise
        return None


def lacking(tracking_uri: str, location: str, folder: Path) -> list[str]:
    """Names of ``folder``'s files that are not at an artifact location: absent, of another size, or, where the
    location is a folder of this machine, of other bytes."""
    if local := _local(location):
        kept, wanted = contents(local), contents(folder)
        return [name for name, digest in wanted.items() if kept.get(name) != digest]
    sizes = _sizes(get_artifact_repository(location, tracking_uri=tracking_uri))
    files = {name: (folder / name).stat().st_size for name in contents(folder)}
    return [name for name, size in files.items() if sizes.get(name) != size]


def fetch(client: MlflowClient, tracking_uri: str, uri: str, folder: Path) -> Path:
    """Download what ``uri`` (``models:/NAME/VERSION``, or as MLflow takes it) names into ``folder``, and where it is.

    Raises WaveError, with the place where they should be, for files that are gone or other than they were registered.
    """
    found = Path(download_artifacts(uri, dst_path=str(folder), tracking_uri=tracking_uri))
    place, registered = uri, dict[str, str]()
    if numbered := re.fullmatch(r"models:/(.+)/(\d+)", uri):
        place = client.get_model_version_download_uri(numbered[1], numbered[2])
        model = logged_model(client, client.get_model_version(numbered[1], numbered[2]).source)
        registered = _registered(model)
        place = model.artifact_location if model else place
    kept = contents(found)
    wanted = registered or dict.fromkeys(_TEMPLATES if _TEMPLATES[0] in kept else _MODEL, "")
    place = str(_local(place) or place)
    for name, digest in wanted.items():
        if name not in kept:
            raise WaveError(f"{uri} lacks {name}, which should be in {place}; put it back, or run its experiment again")
        if digest and kept[name] != digest:
            raise WaveError(f"{uri}: {name} in {place} is not the file that was registered; run its experiment again")
    return found


def _registered(model: LoggedModel | None) -> Mapping[str, str]:
    """The files' names and digests; none for a model of before they were noted, or with a tag that a person changed."""
    try:
        found = json.loads((model.tags or {}).get(FILES_TAG, "{}")) if model else {}
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def _local(location: str) -> Path | None:
    parts = urlsplit(location)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(location) if location.startswith("/") else None


def _sizes(repository: ArtifactRepository, below: str | None = None) -> dict[str, int]:
    sizes = dict[str, int]()
    for entry in repository.list_artifacts(below):
        sizes |= _sizes(repository, entry.path) if entry.is_dir else {entry.path: int(entry.file_size or 0)}
    return sizes
