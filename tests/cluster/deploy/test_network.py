"""Who reaches whom: only the run's own pods, and KubeRay's operator, reach Ray and MLflow."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.cluster import schemas
from tests.cluster.deploy import rendered
from tests.cluster.deploy.policies import Address, Place, Pod, reaches

DASHBOARD, GCS, METRICS, AGENT, MLFLOW, RANDOM = 8265, 6379, 8080, 52365, 5000, 34567
OPERATOR = {"app.kubernetes.io/name": "kuberay-operator"}
DNS = Pod("kube-system", {"k8s-app": "kube-dns"})
API, WORLD, METADATA = Address("10.1.2.3"), Address("93.184.215.14"), Address("169.254.169.254")
STRANGERS: dict[str, Place] = {
    "a pod of the namespace": Pod("default", {"app": "notebook"}),
    "a Ray cluster of others": Pod("default", {"ray.io/node-type": "head", "app.kubernetes.io/name": "kuberay"}),
    "another wave": Pod(
        "default",
        {"app.kubernetes.io/part-of": "wave-2", "app.kubernetes.io/component": "ray", "ray.io/node-type": "worker"},
    ),
    "a twin in another namespace": Pod(
        "other",
        {"app.kubernetes.io/part-of": "wave", "app.kubernetes.io/component": "ray", "ray.io/node-type": "worker"},
    ),
    "an operator elsewhere": Pod("other", OPERATOR),
    "a bare pod": Pod("default"),
    "the world": WORLD,
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return rendered.source(tmp_path)


def world(source: Path) -> tuple[list[dict[str, Any]], dict[str, Place]]:
    pods = rendered.pods(source)
    places: dict[str, Place] = {name: Pod("default", pod["metadata"]["labels"]) for name, pod in pods.items()}
    return rendered.documents(source, "network"), places | {"operator": Pod("default", OPERATOR)}


def who(policies: list[dict[str, Any]], places: dict[str, Place], target: str, port: int) -> set[str]:
    return {name for name, place in places.items() if reaches(policies, place, places[target], port)}


RAY = {"cluster head", "cluster cpu", "cluster gpu", "job head", "job cpu", "job gpu"}


@pytest.mark.parametrize("head", ["cluster head", "job head"])
def test_only_the_runs_pods_and_the_operator_reach_the_head(source: Path, head: str) -> None:
    policies, places = world(source)
    places |= STRANGERS
    assert who(policies, places, head, DASHBOARD) == RAY | {"submitter", "operator"}
    for port in (GCS, METRICS, AGENT, RANDOM):
        assert who(policies, places, head, port) == RAY


def test_nobody_else_reaches_workers_mlflow_or_the_submitter(source: Path) -> None:
    policies, places = world(source)
    places |= STRANGERS
    for port in (GCS, DASHBOARD, METRICS, AGENT, RANDOM):
        assert who(policies, places, "job gpu", port) == RAY
        assert not who(policies, places, "submitter", port)
        assert not who(policies, places, "mlflow", port)
    assert who(policies, places, "mlflow", MLFLOW) == RAY


@pytest.mark.parametrize("queue", ["", "team-a"])
def test_what_pods_reach_outside_is_dns_and_for_the_autoscaler_the_api(source: Path, queue: str) -> None:
    rendered.change(source, 'kueue_queue = ""', f'kueue_queue = "{queue}"')
    rendered.change(source, 'api_server = ["0.0.0.0/0"]', 'api_server = ["10.1.2.3/32"]')
    policies, places = world(source)
    heads = {name for name in RAY if name.endswith("head")}
    for name, place in places.items():
        if name == "operator":
            continue
        for protocol in ("TCP", "UDP"):
            for resolver in (DNS, Address("169.254.20.10")):
                assert reaches(policies, place, resolver, 53, protocol) is (name != "mlflow")
        for port in (443, 6443):
            assert reaches(policies, place, API, port) is (name in heads and not queue)
            assert not reaches(policies, place, WORLD, port)
        assert not any(reaches(policies, place, METADATA, port) for port in (80, 443, 988))
        assert not reaches(policies, place, API, 10250)
        assert not reaches(policies, place, DNS, 9153)


def test_a_model_hub_is_reached_where_the_values_allow_it(source: Path) -> None:
    rendered.change(source, "outside = []", 'outside = ["93.184.215.0/24"]')
    policies, places = world(source)
    others = {"operator", "mlflow", "submitter"}
    assert {name for name in places if reaches(policies, places[name], WORLD, 443)} - {"operator"} == RAY
    assert not any(reaches(policies, places[name], WORLD, 80) for name in places.keys() - {"operator"})
    assert not any(reaches(policies, places[name], METADATA, 80) for name in places.keys() - others)


def test_the_operator_is_looked_for_in_its_namespace(source: Path) -> None:
    rendered.change(source, 'operator = "default"', 'operator = "ray-system"')
    policies, places = world(source)
    assert not reaches(policies, places["operator"], places["job head"], DASHBOARD)
    assert reaches(policies, Pod("ray-system", OPERATOR), places["job head"], DASHBOARD)
    assert not reaches(policies, Pod("ray-system", {"app": "shell"}), places["job head"], DASHBOARD)


def test_policies_hold_to_a_strict_schema(source: Path) -> None:
    schema = schemas.whole("networking.k8s.io/v1", "NetworkPolicy", schemas.network_policy())
    policies = rendered.documents(source, "network")
    for policy in policies:
        schemas.check(policy, schema)
    policies[0]["spec"]["ingress"][0]["form"] = []
    with pytest.raises(jsonschema.ValidationError):
        schemas.check(policies[0], schema)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({}, True),
        ({"from": [{"podSelector": {}}]}, True),
        ({"from": [{"podSelector": {"matchLabels": {"a": "2"}}}]}, False),
        ({"from": [{"namespaceSelector": {}}]}, True),
        ({"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "y"}}}]}, False),
        ({"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}, False),
        ({"ports": [{"port": 80}]}, True),
        ({"ports": [{"port": 80, "protocol": "UDP"}]}, False),
        ({"ports": [{"port": 70, "endPort": 90}]}, True),
        ({"ports": [{"port": 81}]}, False),
        ({"from": [{"podSelector": {}}], "ports": [{"port": 81}]}, False),
    ],
)
def test_the_evaluator_knows_what_a_rule_means(rule: dict[str, Any], expected: bool) -> None:
    source, target = Pod("x", {"a": "1"}), Pod("x", {"b": "1"})
    assert reaches([], source, target, 80)
    spec = {"podSelector": {"matchLabels": {"b": "1"}}, "policyTypes": ["Ingress"]}
    policy = {"metadata": {"namespace": "x"}, "spec": spec}
    assert not reaches([policy], source, target, 80)
    assert reaches([policy], target, source, 80)
    assert reaches([policy], source, Pod("y", {"b": "1"}), 80)
    assert reaches(
        [policy, {"metadata": {"namespace": "x"}, "spec": spec | {"ingress": [rule]}}], source, target, 80
    ) is (expected)
