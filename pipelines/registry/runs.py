"""MLflow runs of a batch: one parent, one child a size, each found again by its key, so nothing stands twice."""

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.entities import PagedList
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from pipelines.registry.abandoned import PROCESS_TAG, this_process
from pipelines.registry.store import Store, explained

T = TypeVar("T")
KEY_TAG = "wave.key"
Status = Literal["FINISHED", "FAILED", "KILLED"]

_CHUNK = 100  # MLflow's limit on parameters and on tags in one call
_KEY = re.compile(r"[A-Za-z0-9_.:/@+-]{1,250}")


def batch_run(store: Store, key: str, name: str, params: Mapping[str, object], tags: Mapping[str, object]) -> str:
    """The id of the batch's parent run, found by ``key`` or created, and RUNNING until `end_batch`.

    MLflow never changes a parameter: on a resume the first value stays and only new names are added. Raises WaveError.
    """
    with explained(store.tracking_uri):
        client = store.client()
        run = _run(client, store.experiment_id, key, name, None)
        _log(client, run, params, {}, tags)
        return run.info.run_id


def size_run(
    store: Store,
    parent_run_id: str,
    key: str,
    name: str,
    params: Mapping[str, object],
    metrics: Mapping[str, float],
    tags: Mapping[str, object],
    status: Status = "FINISHED",
) -> str:
    """The id of one size's run under its parent, found by ``key`` or created, and ended here: with ``status``, or as
    FAILED if logging raises. A metric that already has the value given is not logged again. Raises WaveError.
    """
    with explained(store.tracking_uri):
        client = store.client()
        run = _run(client, store.experiment_id, key, name, parent_run_id)
        ended: Status = "FAILED"
        try:
            _log(client, run, params, metrics, tags)
            ended = status
        finally:
            client.set_terminated(run.info.run_id, ended)
        return run.info.run_id


def finished(store: Store, parent_run_id: str) -> set[str]:
    """The keys of a batch's FINISHED size runs. Raises WaveError."""
    wanted = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent_run_id}' and attributes.status = 'FINISHED'"
    with explained(store.tracking_uri):
        search = store.client().search_runs
        found = pages(lambda token: search([store.experiment_id], wanted, max_results=1000, page_token=token))
        return {run.data.tags[KEY_TAG] for run in found}


def pages(fetch: Callable[[str | None], PagedList[T]]) -> list[T]:
    """All that MLflow gives piece by piece; ``fetch`` takes the token of a piece."""
    found: list[T] = []
    token: str | None = None
    while True:
        page = fetch(token)
        found.extend(page)
        token = page.token
        if not token:
            return found


def end_batch(store: Store, run_id: str, status: Status) -> None:
    """End the parent run. Raises WaveError."""
    with explained(store.tracking_uri):
        store.client().set_terminated(run_id, status)


def log_files(store: Store, run_id: str, *files: Path) -> None:
    """Put files (resolved configuration, result tables) into the run's artifacts, over older ones of the same name."""
    with explained(store.tracking_uri):
        place = store.client().get_run(run_id).info.artifact_uri or ""
        # not the client's way: it keeps the place of a run's id, also of another copy of the database
        repository = get_artifact_repository(place, tracking_uri=store.tracking_uri)
        for file in files:
            repository.log_artifact(str(file))


def _run(client: MlflowClient, experiment_id: str, key: str, name: str, parent: str | None) -> Run:
    """The oldest run with this key, running again, or a new one."""
    if not _KEY.fullmatch(key):
        raise ValueError(f"run key {key!r} does not match {_KEY.pattern}")
    wanted = f"tags.`{KEY_TAG}` = '{key}'" + (f" and tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}'" if parent else "")
    found = client.search_runs([experiment_id], wanted, max_results=1, order_by=["attributes.start_time ASC"])
    if found:
        client.set_tag(found[0].info.run_id, PROCESS_TAG, this_process())  # first: RUNNING and of a dead one is ended
        client.update_run(found[0].info.run_id, status="RUNNING")
        return found[0]
    tags = {KEY_TAG: key, PROCESS_TAG: this_process()} | ({MLFLOW_PARENT_RUN_ID: parent} if parent else {})
    return client.create_run(experiment_id, run_name=name, tags=tags)


def _log(
    client: MlflowClient,
    run: Run,
    params: Mapping[str, object],
    metrics: Mapping[str, float],
    tags: Mapping[str, object],
) -> None:
    now = int(time.time() * 1000)
    new_params = [Param(key, str(value)) for key, value in params.items() if key not in run.data.params]
    new_tags = [RunTag(key, str(value)) for key, value in tags.items() if run.data.tags.get(key) != str(value)]
    new_metrics = [Metric(key, value, now, 0) for key, value in metrics.items() if run.data.metrics.get(key) != value]
    run_id = run.info.run_id
    for start in range(0, len(new_params), _CHUNK):
        client.log_batch(run_id, params=new_params[start : start + _CHUNK])
    for start in range(0, len(new_tags), _CHUNK):
        client.log_batch(run_id, tags=new_tags[start : start + _CHUNK])
    for start in range(0, len(new_metrics), _CHUNK):
        client.log_batch(run_id, metrics=new_metrics[start : start + _CHUNK])
