"""Which Ray a run joins: never another user's, and a wrong or silent address is one line soon, naming what said it."""

import os
import socket
import time
from pathlib import Path

import pytest

from pipelines.config.cluster import Cluster
from pipelines.runtime.ray_address import address, reachable
from tests.other_user import NOBODY, needs_root
from wave.errors import WaveError

DEAD = "127.0.0.1:1"


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))


@pytest.mark.parametrize(
    ("setting", "variable", "found"),
    [
        ("", "", ("", "cluster.address")),
        ("", "a:1", ("a:1", "RAY_ADDRESS")),
        ("auto", "a:1", ("a:1", "RAY_ADDRESS")),
        ("b:1", "a:1", ("b:1", "cluster.address")),
        ("local", "a:1", ("", "cluster.address")),
        ("", "local", ("", "RAY_ADDRESS")),
    ],
)
def test_the_setting_before_the_variable(
    setting: str, variable: str, found: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", variable)
    assert address(Cluster(address=setting)) == found


WRONG = [
    "http://127.0.0.1:8265",
    "https://me:pass@host:1",
    "somewhere",
    "host:99999",
    "host:0",
    "[::1",
    "s3://a:1",
    " ",
]


@pytest.mark.parametrize("wrong", [*WRONG, DEAD, f"ray://{DEAD}", "no.such.host.invalid:6379"])
@pytest.mark.parametrize("source", ["RAY_ADDRESS", "cluster.address"])
def test_wrong_or_silent_is_one_line_that_names_it(wrong: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if source == "RAY_ADDRESS":
        monkeypatch.setenv(source, wrong)
    began = time.monotonic()
    drop = "unset RAY_ADDRESS" if source == "RAY_ADDRESS" else "leave it out"
    with pytest.raises(WaveError, match=rf"^{source}: no Ray session on .*{drop} to use this machine$") as found:
        reachable(Cluster(address=wrong if source == "cluster.address" else ""))
    assert time.monotonic() - began < 20
    assert "\n" not in str(found.value) and "pass" not in str(found.value)
    assert ("cluster submit --address" in str(found.value)) == wrong.startswith("http")


@pytest.mark.parametrize("user", [pytest.param(NOBODY, marks=needs_root), os.geteuid()])
def test_auto_joins_no_ray_of_another_user(user: int, tmp_path: Path) -> None:
    (tmp_path / "ray").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as door:
        where = f"127.0.0.1:{door.getsockname()[1]}"
        (tmp_path / "ray/ray_current_cluster").write_text(where)
        os.chown(tmp_path / "ray/ray_current_cluster", user, -1) if user == NOBODY else None
        if user == os.geteuid():
            assert reachable(Cluster(address="auto")) == (where, "cluster.address")
            (tmp_path / "ray/ray_current_cluster").unlink()
        with pytest.raises(WaveError, match=r'"auto": no Ray session of yours on this machine'):
            reachable(Cluster(address="auto"))
