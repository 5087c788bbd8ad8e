"""The MLflow server is gone for 30 s while sizes are being registered; its password is written down nowhere."""

import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

from cluster.local.head import free_port
from tests.chaos.conftest import Tally
from tests.chaos.support import SIZES, driver, finished, until, until_stage_2
from tests.pipelines.registry.test_registry_server import server

SECRET = "kRz7-geheim"
pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]


def test_server_gone_for_30_seconds(reference: Path, tmp_path: Path, tally: Tally) -> None:
    until_stage_2(reference, tmp_path)
    (tmp_path / "server").mkdir()
    port = free_port(0)
    models = tmp_path / "runs/digits/models"
    with server(tmp_path / "server", port) as uri:
        told = uri.replace("://", f"://wave:{SECRET}@")
        run = driver(tmp_path, f"mlflow.tracking_uri={told}")
        under_way = run.__enter__()
        try:
            until(lambda: any(models.glob("d0*/model.safetensors")), "a model")
            before = finished(tmp_path)
        except BaseException:
            run.__exit__(None, None, None)
            raise
    try:
        time.sleep(30)
        assert len(finished(tmp_path)) < 6, "all was registered before the server went"
        with server(tmp_path / "server", port):
            assert under_way.ended() == 0, under_way.text()
            tally("6 MLflow server gone for 30 s", tmp_path, before, uri=uri)
            client = MlflowClient(uri, uri)
            for name in SIZES:  # the server's copies too
                wanted = reference / f"runs/digits/models/{name}/model.safetensors"
                source = client.get_model_version_by_alias("digits", name).source or ""
                kept = client.get_logged_model(source.removeprefix("models:/")).artifact_location
                copy = download_artifacts(kept, tracking_uri=uri)
                assert (Path(copy) / "model.safetensors").read_bytes() == wanted.read_bytes()
    finally:
        run.__exit__(None, None, None)
    holders = [p for p in tmp_path.rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()]
    assert holders == []
    assert "tracking_uri" in (tmp_path / "runs/digits/resolved.toml").read_text()
    for name in reference.glob("runs/digits/models/d*/model.safetensors"):
        assert (models / name.parent.name / name.name).read_bytes() == name.read_bytes()
