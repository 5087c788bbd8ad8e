"""The model registry, read back: list, show and pull; and the one place to import all of MLflow's part from."""

import difflib
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from pipelines.registry.kept_files import absent, fetch, logged_model
from pipelines.registry.publish import check_names, publication_key, publish, snippet
from pipelines.registry.runs import KEY_TAG, batch_run, end_batch, log_files, pages, size_run
from pipelines.registry.store import Store, existing_store, explained, open_store
from wave.errors import WaveError

__all__ = [
    "ModelRow",
    "Store",
    "batch_run",
    "check_names",
    "end_batch",
    "existing_store",
    "fault",
    "list_models",
    "log_files",
    "open_store",
    "publication_key",
    "publish",
    "pull",
    "show_model",
    "size_run",
    "snippet",
]


@dataclass(frozen=True)
class ModelRow:
    """One alias of the registry and the version it names."""

    registered_model: str
    alias: str
    version: int
    tags: dict[str, str]
    metrics: dict[str, float]
    description: str


def list_models(store: Store, registered_model: str | None = None) -> list[ModelRow]:
    """Every alias whose version `publish` made, sorted by name and alias; of one registered model, or of all.

    Raises WaveError if the registered model is unknown.
    """
    with explained(store.tracking_uri):
        client = store.client()
        if registered_model is not None:
            return _rows(client, _registered(client, registered_model))
        found = pages(lambda token: client.search_registered_models(page_token=token))
        return [row for model in sorted(found, key=lambda model: model.name) for row in _rows(client, model)]


def show_model(store: Store, registered_model: str, alias: str) -> ModelRow:
    """The row of one alias. Raises WaveError with the nearest name if there is no such model or alias."""
    with explained(store.tracking_uri):
        client = store.client()
        model = _registered(client, registered_model)
        if alias not in model.aliases:
            raise WaveError(f"{registered_model!r} has no alias {alias!r}{_nearest(alias, model.aliases)}")
        return _row(client, model, alias, client.get_model_version(registered_model, str(model.aliases[alias])))


def pull(store: Store, registered_model: str, alias: str, destination: Path) -> Path:
    """Copy a version's files into ``destination``, which must be absent or empty, and return it. Raises WaveError.

    The files appear there all at once: an interrupted pull leaves nothing under that name.
    """
    show_model(store, registered_model, alias)
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise WaveError(f"{destination} exists and is not an empty folder; name another one")
    uri = store.tracking_uri
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with explained(uri), tempfile.TemporaryDirectory(dir=destination.parent, prefix=".pull-") as folder:
            client = store.client()
            version = client.get_model_version_by_alias(registered_model, alias).version
            got = fetch(client, uri, f"models:/{registered_model}/{version}", Path(folder))
            files = Path(folder, "files")
            shutil.copytree(got, files)
            files.replace(destination)
    except OSError as error:
        raise WaveError(f"cannot write {destination} ({error.strerror or error}); name another folder") from error
    return destination


def fault(store: Store, row: ModelRow) -> str:
    """Why an alias cannot be pulled, "" if it can: its files are looked at where they lie, not downloaded."""
    uri = f"models:/{row.registered_model}/{row.version}"
    with explained(store.tracking_uri):
        why = absent(store.client(), store.tracking_uri, uri)
    return f"{row.registered_model}@{row.alias}: {why}" if why else ""


def _registered(client: MlflowClient, name: str) -> RegisteredModel:
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        known = [model.name for model in pages(lambda token: client.search_registered_models(page_token=token))]
        raise WaveError(f"the registry has no model {name!r}{_nearest(name, known)}") from error


def _rows(client: MlflowClient, model: RegisteredModel) -> list[ModelRow]:
    name = model.name
    if "'" in name or "\\" in name:  # which MLflow's filters have no way to write
        found = [client.get_model_version(name, str(version)) for version in set(model.aliases.values())]
    else:
        found = pages(lambda token: client.search_model_versions(f"name = '{name}'", page_token=token))
    ours = {int(version.version): version for version in found if KEY_TAG in version.tags}
    # search_model_versions returns no aliases; the registered model does
    named = sorted((alias, int(version)) for alias, version in model.aliases.items())
    return [_row(client, model, alias, ours[version]) for alias, version in named if version in ours]


def _row(client: MlflowClient, model: RegisteredModel, alias: str, version: ModelVersion) -> ModelRow:
    logged = logged_model(client, version.source)  # None: registered by other means
    metrics = {metric.key: metric.value for metric in logged.metrics or []} if logged else {}
    return ModelRow(model.name, alias, int(version.version), dict(version.tags), metrics, version.description or "")


def _nearest(wanted: str, known: Iterable[str]) -> str:
    known = sorted(known)
    near = difflib.get_close_matches(wanted, known, n=1, cutoff=0.0)
    return f"; nearest of {len(known)} is {near[0]!r}" if near else "; it is empty"
