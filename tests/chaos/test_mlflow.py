"""The MLflow server is gone for 30 s while sizes are being registered; its password is written down nowhere."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
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


@contextlib.contextmanager
def forwarding(port: int, to: int) -> Iterator[None]:
    """A port of loopback that leads to another one, for the block; then nothing listens there.

    So an outage lasts as long as the test says, however long a server takes to start.
    """
    ended = threading.Event()
    open_ends: list[socket.socket] = []

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(1 << 16):
                sink.sendall(chunk)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def accept(listening: socket.socket) -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError):
                ends = (listening.accept()[0], socket.create_connection(("127.0.0.1", to)))
                open_ends.extend(ends)
                for source, sink in (ends, ends[::-1]):
                    threading.Thread(target=pump, args=(source, sink), daemon=True).start()

    with socket.create_server(("127.0.0.1", port)) as listening:
        listening.settimeout(0.2)
        thread = threading.Thread(target=accept, args=(listening,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            for end in open_ends:
                end.close()


def test_server_gone_for_30_seconds(reference: Path, tmp_path: Path, tally: Tally) -> None:
    until_stage_2(reference, tmp_path)
    (tmp_path / "server").mkdir()
    front, first, second = free_port(0), free_port(0), free_port(0)
    uri = f"http://127.0.0.1:{front}"
    models = tmp_path / "runs/digits/models"
    with contextlib.ExitStack() as rest, server(tmp_path / "server", second):
        with server(tmp_path / "server", first), forwarding(front, first):
            told = uri.replace("://", f"://wave:{SECRET}@")
            under_way = rest.enter_context(driver(tmp_path, f"mlflow.tracking_uri={told}"))
            until(lambda: any(models.glob("d0*/model.safetensors")), "a model")
            before = finished(tmp_path)
        time.sleep(30)
        assert len(finished(tmp_path)) < 6, "all was registered before the server went"
        with forwarding(front, second):
            assert under_way.ended() == 0, under_way.text()
            tally("6 MLflow server gone for 30 s", tmp_path, before, uri=uri)
            client = MlflowClient(uri, uri)
            for name in SIZES:  # the server's copies too
                wanted = reference / f"runs/digits/models/{name}/model.safetensors"
                source = client.get_model_version_by_alias("digits", name).source or ""
                kept = client.get_logged_model(source.removeprefix("models:/")).artifact_location
                copy = download_artifacts(kept, tracking_uri=uri)
                assert (Path(copy) / "model.safetensors").read_bytes() == wanted.read_bytes()
    holders = [p for p in tmp_path.rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()]
    assert holders == []
    assert "tracking_uri" in (tmp_path / "runs/digits/resolved.toml").read_text()
    for name in reference.glob("runs/digits/models/d*/model.safetensors"):
        assert (models / name.parent.name / name.name).read_bytes() == name.read_bytes()
