"""What doctor says of nodes in good and in bad order."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cluster.cli import cli
from cluster.doctor import checks as doctor
from cluster.doctor import probe
from cluster.errors import ClusterError
from tests.pipelines.support import ROOT


def node(address: str = "10.0.0.1", **fields: Any) -> dict[str, Any]:
    good = {
        "address": address,
        "head": address == "10.0.0.1",
        "versions": {"python": "3.11.7", "mlflow": "3.17.2"},
        "gpus": 0,
        "ray_gpus": 0.0,
        "write": "",
    }
    return good | {"unseen": [], "mlflow": "3.17.2", "mlflow_error": ""} | fields


def failures(*nodes: dict[str, Any], storage: str = "/mnt/s", mlflow: str = "http://m:1") -> list[str]:
    return [str(check) for check in doctor.judge(list(nodes), storage, mlflow) if check.fix]


def test_a_cluster_in_order() -> None:
    checks = [
        str(check) for check in doctor.judge([node(), node("10.0.0.2", gpus=1, ray_gpus=1.0)], "/mnt/s", "http://m:1")
    ]
    assert len(checks) == 9
    assert checks[0] == "ok    nodes: 2 looked at"
    assert all(check.startswith("ok ") and "\n" not in check for check in checks)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"versions": {"python": "3.12.0", "mlflow": "3.17.2"}}, "node 10.0.0.1 has python==3.11.7: use one image"),
        ({"versions": {"python": "3.11.7", "mlflow": ""}, "mlflow": ""}, "install mlflow there"),
        ({"gpus": 1}, "start Ray there with --num-gpus"),
        ({"ray_gpus": 2.0, "gpus": 1}, "Ray counts 2, the driver shows 1"),
        ({"write": "Permission denied"}, "not writable (Permission denied)"),
        ({"unseen": ["10.0.0.1"]}, "does not show what 10.0.0.1 wrote"),
        ({"mlflow_error": "Connection refused"}, "not reached (Connection refused)"),
        ({"mlflow_error": "HTTP 401 for /x: "}, "set MLFLOW_TRACKING_USERNAME"),
        ({"mlflow_error": "HTTP 403 for /x: Invalid Host"}, "--allowed-hosts"),
        ({"mlflow": "3.18.1"}, "install mlflow==3.18.1 on the nodes"),
        ({"error": "node died"}, "no answer (node died)"),
    ],
)
def test_each_fault_is_one_line_with_a_fix(fields: dict[str, Any], message: str) -> None:
    found = failures(node(), node("10.0.0.2", **fields))
    assert any(message in line and line.startswith("FAIL") and ". Fix: " in line for line in found)
    assert all("10.0.0.2" in line.partition(": ")[0] for line in found)


def test_how_many_nodes_were_looked_at() -> None:
    first, *_ = doctor.judge([node()], "/mnt/s", "http://m:1")
    assert str(first).startswith("ok    nodes: 1 looked at: the head alone; workers may still come")
    assert "none answered" in failures()[0]


@pytest.mark.parametrize(
    ("ray", "python", "message"),
    [
        ("2.60.0", "3.11.9", ""),
        ("2.61.0", "3.11.7", "FAIL  ray of this machine: 2.61.0, the nodes have 2.60.0. Fix: use ray 2.60.0 here"),
        ("2.60.0", "3.12.7", "FAIL  python of this machine: 3.12, the nodes have 3.11. Fix: use python 3.11 here"),
    ],
)
def test_the_laptop_has_the_versions_of_the_nodes(ray: str, python: str, message: str) -> None:
    nodes = [node(error="node died"), node(versions={"ray": "2.60.0", "python": "3.11.7"})]
    lines = [str(check) for check in doctor.laptop({"ray": ray, "python": python}, nodes)]
    assert len(lines) == 2
    failed = [line for line in lines if line.startswith("FAIL")]
    assert len(failed) == bool(message) and all(line.startswith(message) for line in failed)
    assert not list(doctor.laptop({"ray": ray, "python": python}, nodes[:1]))


def test_nodes_have_the_versions_that_the_checkout_asks_for() -> None:
    here = probe.versions()
    good = doctor.wanted([node(versions=here)], ROOT / "pyproject.toml")
    assert [str(check) for check in good] == ["ok    packages 10.0.0.1: as this checkout's pyproject.toml asks"]
    old = node("10.0.0.2", versions={**here, "timm": "0.4.0", "python": "3.9.1"})
    (bad,) = doctor.wanted([node(error="node died"), old], ROOT / "pyproject.toml")
    assert bad.found == "python 3.9.1, timm 0.4.0" and "timm<1.1,>=1.0.31" in bad.fix and "python>=3.11" in bad.fix
    assert not list(doctor.wanted([old], ROOT / "nowhere.toml"))


@pytest.mark.parametrize("uri", ["http://someone:geheim-77@127.0.0.1:9", "nonsense"])
def test_an_mlflow_address_that_is_none_goes_into_no_job(uri: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        cli, ["doctor", "--address", "http://127.0.0.1:9", "--mlflow", uri, "--state", str(tmp_path)]
    )
    assert isinstance(done.exception, ClusterError) and "geheim" not in done.output + str(done.exception)


def test_what_was_not_given_is_a_failure() -> None:
    assert len(failures(node(), storage="", mlflow="")) == 2


def test_the_probe_on_this_machine(tmp_path: Any) -> None:
    found = probe.look("abc", str(tmp_path / "new"), "http://127.0.0.1:9")
    assert found["versions"]["ray"]
    assert found["write"] == ""
    assert probe.see(str(tmp_path / "new")) == ["abc"]
    assert "refused" in found["mlflow_error"]
    assert "Not a directory" in probe.write("/dev/null/x", "abc")


def test_an_address_where_nobody_listens() -> None:
    checks = list(doctor.examine(doctor.Target("http://127.0.0.1:9", ""), "/s", "http://m"))
    assert len(checks) == 1
    assert "does not answer" in str(checks[0])
