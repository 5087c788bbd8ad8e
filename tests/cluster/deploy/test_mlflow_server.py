"""The script for a machine of one's own starts a server with passwords, and makes the account that runs use."""

import base64
import importlib.util
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cluster.deploy import mlflow_server
from tests.cluster.deploy.mlflow_running import ACCOUNT, ADMIN, SECRETS, Server, start, wait

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not importlib.util.find_spec("flask_wtf"), reason="needs pip install 'mlflow[auth]' (Flask-WTF)"
    ),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = start(tmp_path_factory.mktemp("mlflow"), SECRETS)
    try:
        wait(found, "the account wave is there")
        yield found
    finally:
        found.process.terminate()
        found.process.wait(60)


def test_the_server_of_the_script_wants_a_password(server: Server) -> None:
    assert server.search(None) == 401
    assert server.search(("admin", "another-password")) == 401
    assert server.search(("wave", "another-password")) == 401
    assert server.search(ADMIN) == 200
    assert server.search(ACCOUNT) == 200
    log = server.log.read_text()
    assert ADMIN[1] not in log
    assert ACCOUNT[1] not in log


def _client(server: Server, who: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", who[0])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", who[1])
    return MlflowClient(server.address, server.address)


def test_the_account_logs_and_registers(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = _client(server, ACCOUNT, monkeypatch)
    run = client.create_run(client.create_experiment("by the account"))
    client.log_metric(run.info.run_id, "accuracy", 0.5)
    client.set_tag(run.info.run_id, "a", "b")
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"weights")
    client.log_artifact(run.info.run_id, str(file))
    model = client.create_logged_model(run.info.experiment_id, "m", source_run_id=run.info.run_id)
    client.log_model_artifacts(model.model_id, str(tmp_path))
    client.finalize_logged_model(model.model_id, "READY")
    client.create_registered_model("wave-test")
    version = client.create_model_version("wave-test", model.model_uri, model_id=model.model_id)
    client.set_model_version_tag("wave-test", version.version, "parameters", "1")
    client.set_registered_model_alias("wave-test", "best", version.version)
    assert client.get_model_version_by_alias("wave-test", "best").version == version.version
    out = tmp_path / "out"
    out.mkdir()
    assert Path(client.download_artifacts(run.info.run_id, file.name, str(out))).read_bytes() == b"weights"
    client.set_terminated(run.info.run_id)


def test_the_account_is_no_administrator(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    someone = {"username": "someone", "password": "a-long-password"}
    assert server.users(ACCOUNT, "create", someone) == 403
    assert server.users(ADMIN, "create", someone) == 200
    for name in ("someone", "admin"):
        assert server.users(ACCOUNT, "get", {"username": name}) == 403
        assert server.users(ACCOUNT, "delete", {"username": name}) == 403
        assert server.users(ACCOUNT, "update-admin", {"username": name, "is_admin": False}) == 403
        assert server.users(ACCOUNT, "update-password", {"username": name, "password": "x" * 20}) == 403
    assert server.users(ACCOUNT, "update-admin", {"username": "wave", "is_admin": True}) == 403
    assert server.search(("someone", "a-long-password")) == 200
    # What others made is theirs.
    theirs = _client(server, ADMIN, monkeypatch).create_experiment("by the administrator")
    _client(server, ADMIN, monkeypatch).create_registered_model("theirs")
    client = _client(server, ACCOUNT, monkeypatch)
    attempts = [
        lambda: client.delete_experiment(theirs),
        lambda: client.rename_experiment(theirs, "mine"),
        lambda: client.create_run(theirs),
        lambda: client.delete_registered_model("theirs"),
        lambda: client.set_registered_model_tag("theirs", "a", "b"),
    ]
    for attempt in attempts:
        with pytest.raises(MlflowException, match=r"403|[Pp]ermission"):
            attempt()


def test_a_changed_password_and_a_raised_account_are_put_right(server: Server, tmp_path: Path) -> None:
    changed = ("wave", "another-nodes-password")
    assert server.users(ADMIN, "update-admin", {"username": "wave", "is_admin": True}) == 200
    for who in (changed, ACCOUNT):
        ready = tmp_path / who[1]
        container = server.account(ready, WAVE_MLFLOW_PASSWORD=who[1])
        deadline = time.monotonic() + 60
        while not ready.exists():
            assert container.poll() is None, container.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert server.search(who) == 200
        assert server.users(who, "create", {"username": "x", "password": "a-long-password"}) == 403
        # It stays, as a container has to, and goes when it is told.
        assert container.poll() is None
        container.terminate()
        output, errors = container.communicate(timeout=20)
        assert container.returncode == 0
        assert output == "the account wave is there\n"
        assert not errors
    assert server.search(changed) == 401


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"MLFLOW_AUTH_ADMIN_PASSWORD": "not-the-first-one"}, "MLflow answers 401 to the administrator"),
        ({"WAVE_MLFLOW_USERNAME": "short", "WAVE_MLFLOW_PASSWORD": "short"}, "a password has 12 or more characters"),
        ({"WAVE_MLFLOW_USERNAME": "admin"}, "the account is called admin, as the administrator is"),
    ],
)
def test_an_account_that_cannot_be_made_is_one_line(
    server: Server, tmp_path: Path, variables: dict[str, str], message: str
) -> None:
    container = server.account(tmp_path / "ready", **variables)
    output, errors = container.communicate(timeout=60)
    assert container.returncode == 1
    assert not output
    assert len(errors.splitlines()) == 1
    assert message in errors
    assert not (tmp_path / "ready").exists()
    assert server.search(ADMIN) == server.search(ACCOUNT) == 200


def test_the_server_answers_probes_while_uploads_are_slow(server: Server) -> None:
    _, deployment, _ = mlflow_server.manifests(server.loaded)
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    probe = container["readinessProbe"]
    stop = threading.Event()
    who = base64.b64encode(":".join(ACCOUNT).encode()).decode()

    def upload(number: int) -> None:
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            path = f"/api/2.0/mlflow-artifacts/artifacts/1/{number}"
            lines = [f"PUT {path} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", f"Authorization: Basic {who}"]
            connection.sendall("\r\n".join([*lines, "Content-Length: 1000000", "", ""]).encode())
            while not stop.wait(0.5):
                try:
                    connection.sendall(b"x" * 1000)
                except OSError:
                    return

    uploads = [threading.Thread(target=upload, args=(number,)) for number in range(60)]
    try:
        for thread in uploads:
            thread.start()
        # As the kubelet counts: so many in a row that were late take the server away.
        late = 0
        for _ in range(probe["failureThreshold"] + 2):
            begin = time.monotonic()
            assert server.ask(None, "/health") == 200
            late = late + 1 if time.monotonic() - begin > probe["timeoutSeconds"] else 0
            assert late < probe["failureThreshold"]
            time.sleep(0.5)
    finally:
        stop.set()
        for thread in uploads:
            thread.join()


def test_a_server_without_its_account_ends(tmp_path: Path) -> None:
    found = start(tmp_path, SECRETS | {"WAVE_MLFLOW_PASSWORD": "short"})
    try:
        found.process.wait(240)
        assert "a password has 12 or more characters" in found.log.read_text()
    finally:
        found.process.kill()
        found.process.wait(60)
