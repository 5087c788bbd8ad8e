"""Publishing: a folder of plain files becomes one version of a registered model under an alias, exactly once."""

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelStatus, Metric
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from pipelines.registry.kept_files import FILES_TAG, lacking, logged_model
from pipelines.registry.runs import KEY_TAG
from pipelines.registry.store import Store, explained, notice
from pipelines.runtime.files import contents
from wave.errors import WaveError

_NAME = re.compile(r"[A-Za-z0-9_-]{1,200}")
_RESERVED = re.compile(r"latest|v\d+", re.IGNORECASE)


def check_names(registered_model: str, alias: str | None = None, suffix: str = "") -> None:
    """Raise WaveError unless MLflow takes both names, and the first with ``suffix`` too."""
    for what, name, more in (("registered model", registered_model, suffix), ("alias", alias, "")):
        most = 200 - len(more)
        if name is not None and not (_NAME.fullmatch(name) and len(name) <= most):
            near = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:most] or "digits"
            raise WaveError(f"{what} name {name!r} has to be 1 to {most} of A-Z a-z 0-9 _ -; nearest is {near!r}")
    if alias is not None and _RESERVED.fullmatch(alias):
        raise WaveError(
            f"alias {alias!r} is reserved by MLflow ('latest' and 'v' with a number); use 'd096-l06' or alike"
        )


def publication_key(directory: Path, registered_model: str, alias: str, batch: str = "") -> str:
    """Hex SHA-256 of what a publication is: every file's relative path and bytes, the names, and the batch's key."""
    digest = hashlib.sha256(repr((registered_model, alias, batch)).encode())
    files = contents(directory)
    if not files:
        raise WaveError(f"there is nothing to register: {directory} is no folder with files in it")
    for entry in files.items():
        digest.update(repr(entry).encode())
    return digest.hexdigest()


def publish(
    store: Store,
    directory: Path,
    registered_model: str,
    alias: str,
    run_id: str,
    tags: Mapping[str, object],
    description: str,
    metrics: Mapping[str, float],
    batch: str = "",
) -> int:
    """Register ``directory`` and return the version number; afterwards ``registered_model@alias`` is that folder.

    Calling again with the same files, names and ``batch`` gives the same version, also after a crash between any two
    steps: a logged model left behind is filled and used, and files that are gone are uploaded again. If two processes
    publish the same at once, both may make a version; each then keeps the lowest and deletes the rest, so one is left
    when both have returned.

    Raises:
        WaveError: a bad name, an empty folder, or what MLflow answered; no registered model is left without versions.
    """
    check_names(registered_model, alias)
    key = publication_key(directory, registered_model, alias, batch)
    with explained(store.tracking_uri):
        client = store.client()
        version = _settled(client, registered_model, key)
        if version is not None and not _whole(client, store, directory, registered_model, version):
            version = None
        if version is None:
            text = {name: str(value) for name, value in tags.items()} | {KEY_TAG: key}
            model = _logged_model(client, store, directory, alias, run_id, text, metrics)
            version = _create_version(client, registered_model, model, run_id, text, description)
            version = _settled(client, registered_model, key) or version
        _point(client, registered_model, alias, version)
    return version


def snippet(registered_model: str, alias: str) -> str:
    """Markdown for a version's description: three lines that load it with MLflow and timm alone."""
    check_names(registered_model, alias)
    return (
        "```python\nimport mlflow, timm\n"
        f'path = mlflow.artifacts.download_artifacts("models:/{registered_model}@{alias}")\n'
        'model = timm.create_model("local-dir:" + path, pretrained=True)\n```\n'
    )


def _settled(client: MlflowClient, registered_model: str, key: str) -> int | None:
    """The lowest version with this key, after deleting any other one; None if there is none."""
    found = client.search_model_versions(f"name = '{registered_model}' and tags.`{KEY_TAG}` = '{key}'")
    versions = sorted(found, key=lambda version: int(version.version))
    for extra in versions[1:]:
        _gone_is_fine(lambda extra=extra: client.delete_model_version(registered_model, str(extra.version)))
        if extra.source != versions[0].source and extra.source:
            model_id = extra.source.removeprefix("models:/")
            _gone_is_fine(lambda model_id=model_id: client.delete_logged_model(model_id))
    return int(versions[0].version) if versions else None


def _whole(client: MlflowClient, store: Store, directory: Path, registered_model: str, version: int) -> bool:
    """Upload again what a version lacks; False, and no version any more, where the logged model behind it is gone."""
    model = logged_model(client, client.get_model_version(registered_model, str(version)).source)
    if model is None:
        _gone_is_fine(lambda: client.delete_model_version(registered_model, str(version)))
        notice(f"registry: {registered_model} version {version} had lost its files; it is registered again")
        return False
    if names := _filled(client, store, directory, model):
        notice(f"registry: {registered_model} version {version} lacked {', '.join(names)}; uploaded again")
    return True


def _filled(client: MlflowClient, store: Store, directory: Path, model: LoggedModel) -> list[str]:
    """The names of files that a logged model lacked, uploaded now."""
    names = lacking(store.tracking_uri, model.artifact_location, directory)
    if names:
        # not the client's way: it keeps the place of a model's id, also of another copy of the database
        repository = get_artifact_repository(model.artifact_location, tracking_uri=store.tracking_uri)
        repository.log_artifacts(str(directory))
        if left := lacking(store.tracking_uri, model.artifact_location, directory):
            raise WaveError(f"{left[0]} cannot be put into {model.artifact_location}; see what holds it")
    return names


def _gone_is_fine(delete: Callable[[], object]) -> None:
    try:
        delete()
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def _point(client: MlflowClient, registered_model: str, alias: str, version: int) -> None:
    """Let the alias name the version; of two processes that set a new alias at once one fails, but not twice."""
    for last in (False, True):
        if client.get_registered_model(registered_model).aliases.get(alias) == version:
            return
        try:
            return client.set_registered_model_alias(registered_model, alias, str(version))
        except MlflowException:
            if last:
                raise


def _logged_model(
    client: MlflowClient,
    store: Store,
    directory: Path,
    name: str,
    run_id: str,
    tags: Mapping[str, str],
    metrics: Mapping[str, float],
) -> LoggedModel:
    """A READY logged model with these files: one that an earlier call left, finished now if need be, or a new one."""
    found = client.search_logged_models([store.experiment_id], f"tags.`{KEY_TAG}` = '{tags[KEY_TAG]}'")
    ready = [model for model in found if model.status == LoggedModelStatus.READY]
    if ready:
        _filled(client, store, directory, ready[0])
        return ready[0]
    noted = {**tags, FILES_TAG: json.dumps(contents(directory))}
    model = found[0] if found else client.create_logged_model(store.experiment_id, name, run_id, noted)
    client.log_model_artifacts(model.model_id, str(directory))
    now = int(time.time() * 1000)
    measured = [Metric(key, value, now, 0, model_id=model.model_id) for key, value in metrics.items()]
    client.log_batch(run_id, metrics=measured)
    return client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def _create_version(
    client: MlflowClient,
    registered_model: str,
    model: LoggedModel,
    run_id: str,
    tags: Mapping[str, str],
    description: str,
) -> int:
    """Create the version, and first the registered model if need be; on failure no empty one of ours stays."""
    for attempt in (1, 2, 3):  # another process that failed may delete the empty registered model under our hands
        made = version = None
        try:
            made = _registered_model(client, registered_model)
            version = client.create_model_version(
                registered_model, model.model_uri, run_id, dict(tags), description=description, model_id=model.model_id
            )
            return int(version.version)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST" or attempt == 3:
                raise
        finally:  # also on KeyboardInterrupt, and on the SystemExit that Tune raises to stop a trial
            if made and version is None and not client.search_model_versions(f"name = '{registered_model}'"):
                _gone_is_fine(lambda: client.delete_registered_model(registered_model))
    raise AssertionError("unreachable")


def _registered_model(client: MlflowClient, name: str) -> bool:
    """Create the registered model; False if it is there already."""
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return False
    return True
