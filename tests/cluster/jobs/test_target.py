"""Which cluster and which token."""

import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
import requests

from cluster.errors import ClusterError
from cluster.jobs import target
from cluster.jobs.client import Jobs
from cluster.local import state
from cluster.local.processes import started

HERE = "http://127.0.0.1:8265"


@pytest.fixture(autouse=True)
def _plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", *target.VARIABLES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def record(folder: Path, url: str = HERE) -> None:
    me = started(os.getpid())
    assert me
    services = {
        "ray": state.Service(os.getpid(), me, url),
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


class Door(http.server.ThreadingHTTPServer):
    """A Jobs server without jobs; ``heard`` is the Authorization header of each request, None where it had none."""

    def __init__(self) -> None:
        self.heard: list[str | None] = []
        super().__init__(("127.0.0.1", 0), Answer)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        cast(Door, self.server).heard.append(self.headers["Authorization"])
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"ray_version": "2.60.0", "version": "4"}' if "version" in self.path else b"[]")

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def doors() -> Iterator[tuple[Door, Door]]:
    made = (Door(), Door())
    yield made
    for door in made:
        door.shutdown()
        door.server_close()


@pytest.mark.parametrize("name", target.VARIABLES)
@pytest.mark.parametrize("form", ["http://{}", "{}", "http://{}/", "127.0.0.1:1", "ray://{}", "auto", "nonsense"])
def test_the_address_given_wins_over_every_variable_and_the_token_goes_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, doors: tuple[Door, Door], name: str, form: str
) -> None:
    given, other = doors
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    monkeypatch.setenv(name, form.format(other.address))
    found = target.find(given.address, tmp_path)
    assert Jobs(found).list() == []
    assert other.heard == [] and set(given.heard) == {"Bearer secret"}
    assert found.why == f"--address; not {name}={form.format(other.address)}"
    assert os.environ[name] == form.format(other.address)


@pytest.mark.parametrize("form", ["http://{}", "127.0.0.1:1", "ray://127.0.0.1:1"])
def test_the_local_cluster_wins_over_every_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, doors: tuple[Door, Door], form: str
) -> None:
    here, other = doors
    record(tmp_path, f"http://{here.address}")
    for name in target.VARIABLES:
        monkeypatch.setenv(name, form.format(other.address))
    found = target.find("", tmp_path)
    assert Jobs(found).list() == []
    assert other.heard == [] and set(here.heard) == {"Bearer local-token"}
    assert found.why.startswith("the one of `up --local`; not RAY_API_SERVER_ADDRESS=")


def test_a_variable_counts_where_nothing_else_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://10.0.0.2:8265")
    assert (target.find("", tmp_path).address, target.find("", tmp_path).why) == (
        "http://10.0.0.2:8265",
        "$RAY_ADDRESS",
    )
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "10.0.0.1:8265/")
    found = target.find("", tmp_path)
    assert (found.address, found.why) == ("http://10.0.0.1:8265", "$RAY_API_SERVER_ADDRESS")
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS")
    for value in ("10.0.0.1:6379", "auto", "ray://me:pass@10.0.0.1:10001"):  # of a Ray session, not of its Jobs server
        monkeypatch.setenv("RAY_ADDRESS", value)
        with pytest.raises(ClusterError, match=r"^RAY_ADDRESS=.* is not that of a Jobs server; give --address") as said:
            target.find("", tmp_path)
        assert "pass" not in str(said.value)


def test_no_proxy_sees_a_cluster_without_tls_nor_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "example.org")
    assert requests.utils.get_environ_proxies(HERE)
    target.find("https://ray.company.example", tmp_path)
    assert requests.utils.get_environ_proxies("https://ray.company.example")
    for address in (HERE, "http://localhost:8265", "http://[::1]:8265", "http://127.0.1.1:8265", "http://example.org"):
        assert not requests.utils.get_environ_proxies(address), address
    assert requests.utils.get_environ_proxies("http://10.0.0.1:8265")
    target.find("http://10.0.0.1:8265", tmp_path)
    assert not requests.utils.get_environ_proxies("http://10.0.0.1:8265")
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
