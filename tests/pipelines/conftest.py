"""A real SQLite store that the tests of one file share."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from pipelines.registry import query as registry
from pipelines.registry import store


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database for the module: making the schema takes seconds. The name has to be quoted in a URI."""
    return tmp_path_factory.mktemp("run 100%")


@pytest.fixture(scope="module")
def opened(workdir: Path) -> Iterator[store.Store]:
    before = mlflow.get_tracking_uri()
    yield registry.open_store("", "digits", workdir)
    mlflow.set_tracking_uri(before)
    mlflow.set_registry_uri("")
