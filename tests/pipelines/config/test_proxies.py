"""This machine is never reached through a proxy, and a proxy is named by its variable."""

import os
import subprocess
import sys

import pytest
import requests

from pipelines.config import proxies
from tests.pipelines.support import ROOT

NAMES = [f"{kind}_proxy" for kind in ("http", "https", "all", "no")]
LOCAL = ["http://127.0.0.1:5000", "http://localhost:5000", "https://[::1]:5000", "http://127.0.1.1:5000"]


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
def test_no_way_to_this_machine_and_every_other_as_before(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "http://me:pass@127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", " example.org ,")
    proxies.bypass(os.environ)
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"]
    for address in (*LOCAL, "http://example.org"):
        assert not requests.utils.get_environ_proxies(address), address
        assert not proxies.through(address) or "127.0.1.1" in address
    far = "https://far.example" if "https" in name.lower() else "http://far.example"
    assert requests.utils.get_environ_proxies(far)
    assert proxies.through(far) == f"{name}=http://***@127.0.0.1:9"
    before = dict(os.environ)
    proxies.bypass(os.environ)
    assert dict(os.environ) == before


def test_an_exception_for_everything_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    proxies.bypass(os.environ)
    assert os.environ["no_proxy"] == "*" and "NO_PROXY" not in os.environ


def test_a_command_asks_this_machine_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry on a closed port of this machine: refused there, not by the proxy."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    words = [sys.executable, "-m", "pipelines", "models", "list", "--tracking-uri", "http://127.0.0.1:1"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "ConnectionError" in done.stderr and "Proxy" not in done.stderr
