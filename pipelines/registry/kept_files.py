"""A version's files: which there should be, and whether the registry still has them as they were."""

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
from wave.json_file import JsonError, parse_json

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
    place, registered = _expected(client, uri)
    if why := _difference(contents(found), registered, place):
        raise WaveError(f"{uri} {why}")
    return found


def absent(client: MlflowClient, tracking_uri: str, uri: str) -> str:
    """What is wrong with the files of ``models:/NAME/VERSION``, "" if nothing is; on a server names are compared."""
    place, registered = _expected(client, uri)
    if local := _local(place):
        return _difference(contents(local), registered, place)
    kept = dict.fromkeys(_sizes(get_artifact_repository(place, tracking_uri=tracking_uri)), "")
    return _difference(kept, dict.fromkeys(registered, ""), place)


def _expected(client: MlflowClient, uri: str) -> tuple[str, Mapping[str, str]]:
    """Where the files of ``uri`` should be, and their digests where they were noted."""
    numbered = re.fullmatch(r"models:/(.+)/(\d+)", uri)
    if not numbered:
        return uri, {}
    model = logged_model(client, client.get_model_version(numbered[1], numbered[2]).source)
    if model is None:
        return client.get_model_version_download_uri(numbered[1], numbered[2]), {}
    return model.artifact_location, _registered(model)


def _difference(kept: Mapping[str, str], registered: Mapping[str, str], place: str) -> str:
    where = _local(place) or place
    wanted = registered or dict.fromkeys(_TEMPLATES if _TEMPLATES[0] in kept else _MODEL, "")
    for name, digest in wanted.items():
        if name not in kept:
            return f"lacks {name}, which should be in {where}; put it back, or run its experiment again"
        if digest and kept[name] != digest:
            return f"has another {name} in {where} than was registered; run its experiment again"
    return ""


def _registered(model: LoggedModel) -> Mapping[str, str]:
    """The files' names and digests; none for a model of before they were noted, or with a tag that a person changed."""
    try:
        found = parse_json((model.tags or {}).get(FILES_TAG, "{}"), FILES_TAG)
    except JsonError:
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
