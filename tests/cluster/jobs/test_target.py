"""Which cluster and which token."""

import os
from pathlib import Path

import pytest
import requests

from cluster.errors import ClusterError
from cluster.jobs import target
from cluster.local import state
from cluster.local.processes import started

HERE = "http://127.0.0.1:8265"


@pytest.fixture(autouse=True)
def _plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def record(folder: Path) -> None:
    me = started(os.getpid())
    assert me
    services = {
        "ray": state.Service(os.getpid(), me, HERE),
        "mlflow": state.Service(os.getpid(), "other", "http://gone"),
    }
    state.save(folder, state.State("0123456789abcdef", "", services))
    state.token_file(folder).write_text("local-token")


def test_the_local_cluster_is_the_default_and_its_token_is_for_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(tmp_path)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "other-token")
    for address in ("", HERE, HERE + "/", "localhost:8265"):
        found = target.find(address, tmp_path)
        assert (found.address, found.token, found.local, found.mlflow) == (HERE, "local-token", True, "")
    assert target.find("http://10.0.0.1:8265", tmp_path).token == "other-token"


def test_tokens_from_where_ray_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = "10.0.0.1:8265"
    assert target.find(address, tmp_path).headers == {}
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("home\n")
    assert target.find(address, tmp_path).headers == {"Authorization": "Bearer home"}
    (tmp_path / "file").write_text("file")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "file"))
    assert target.find(address, tmp_path).token == "file"
    assert "file" not in repr(target.find(address, tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ClusterError, match="cannot be read"):
        target.find(address, tmp_path)
    (tmp_path / "file").write_bytes(b"\xff\xfe")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "file"))
    with pytest.raises(ClusterError, match="is not text"):
        target.find(address, tmp_path)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "tök€n")
    with pytest.raises(ClusterError, match="as an HTTP header can carry") as caught:
        target.find(address, tmp_path)
    assert "tök" not in str(caught.value)


def test_no_proxy_sees_the_local_cluster_or_its_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "example.org")
    target.find("http://10.0.0.1:8265", tmp_path)
    assert requests.utils.get_environ_proxies(HERE)
    target.find(HERE, tmp_path)
    assert not requests.utils.get_environ_proxies(HERE)
    assert os.environ["no_proxy"].startswith("example.org,")


def test_a_local_token_that_is_gone_is_one_line(tmp_path: Path) -> None:
    record(tmp_path)
    state.token_file(tmp_path).unlink()
    with pytest.raises(ClusterError, match=r"the local cluster's token file .* cannot be read: No such file"):
        target.find("", tmp_path)


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no cluster: give --address"):
        target.find("", tmp_path)
    with pytest.raises(ClusterError, match="not that of a Jobs server"):
        target.find("ray://10.0.0.1:10001", tmp_path)
    for address in ("http://[::1", "http://h:99999", "h:port", "http:///jobs", "http://a b:8265"):
        with pytest.raises(ClusterError, match="not that of a Jobs server"):
            target.find(address, tmp_path)
    for text in (
        "{",
        "null",
        '{"mark": "", "scratch": "", "services": []}',
        '{"scratch": "/tmp/precious"}',
        '{"mark": "PATH"}',
        '{"scratch": "/tmp/wave-a/../../home"}',
        '{"services": {"ray": {"pid": [1], "since": "", "url": ""}}}',
    ):
        (tmp_path / "state.json").write_text(text)
        with pytest.raises(ClusterError, match="is not as `up` wrote it"):
            target.find("", tmp_path)
    with pytest.raises(ClusterError, match="cannot be read"):
        target.find("", Path("/dev/null"))


def test_one_up_or_down_at_a_time(tmp_path: Path) -> None:
    with state.locked(tmp_path), pytest.raises(ClusterError, match="another up or down"), state.locked(tmp_path):
        pass
