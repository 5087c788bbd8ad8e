"""Network policies: who reaches Ray and MLflow, and whom they reach.

A pod that a policy names talks to nobody but those it lists; policies add up, so that a further one
lets in what a team wants besides (Prometheus, an ingress). Answers to what was let through, probes
of the node's own kubelet and `kubectl port-forward` pass in any case; a claim is mounted by the
node, so it needs no rule either.
"""

from typing import Any

from cluster.deploy.pods import labels
from cluster.deploy.values import Values

RAY, SUBMITTER, MLFLOW = "ray", "submitter", "mlflow"
DASHBOARD = 8265

_DNS = {
    "to": [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
            "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
        },
        # Where each node has a DNS cache of its own, pods ask it at this address.
        {"ipBlock": {"cidr": "169.254.20.10/32"}},
    ],
    "ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")],
}


def _ports(*numbers: int) -> list[dict[str, Any]]:
    return [{"protocol": "TCP", "port": number} for number in numbers]


def _networks(networks: list[str]) -> list[dict[str, Any]]:
    return [{"ipBlock": {"cidr": network}} for network in networks]


def policies(values: Values) -> list[dict[str, Any]]:
    """One policy for each kind of pod, and one more for Ray's heads."""
    wanted = values.kubernetes

    def pods(component: str) -> dict[str, Any]:
        return {"podSelector": {"matchLabels": labels(values, component)}}

    def policy(name: str, pod: dict[str, Any], **rules: list[dict[str, Any]]) -> dict[str, Any]:
        metadata = {"name": f"{values.name}-{name}", "namespace": values.namespace}
        # Both, always: where one is named without a rule, nothing passes in that direction.
        spec = pod | {"policyTypes": ["Ingress", "Egress"]} | rules
        return {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": metadata,
            "spec": spec,
        }

    mlflow = _ports(values.mlflow.port)
    # Ray's nodes choose most of their ports at random.
    ray_egress = [{"to": [pods(RAY)]}, {"to": [pods(MLFLOW)], "ports": mlflow}, _DNS]
    if wanted.outside:
        ray_egress.append({"to": _networks(wanted.outside), "ports": _ports(443)})
    head = {"podSelector": {"matchLabels": labels(values, RAY) | {"ray.io/node-type": "head"}}}
    operator = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": wanted.operator}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}},
    }
    # The autoscaler, in the head's pod, asks the API server for pods; under Kueue there is none.
    # The port is the one behind the Service, which is where most networks look.
    scaling = {"to": _networks(wanted.api_server), "ports": _ports(443, 6443)}
    return [
        policy("ray", pods(RAY), ingress=[{"from": [pods(RAY)]}], egress=ray_egress),
        policy(
            "head",
            head,
            ingress=[{"from": [pods(SUBMITTER), operator], "ports": _ports(DASHBOARD)}],
            egress=[scaling] if wanted.api_server and not values.kueue_queue else [],
        ),
        policy("submitter", pods(SUBMITTER), egress=[{"to": [head], "ports": _ports(DASHBOARD)}, _DNS]),
        policy("mlflow", pods(MLFLOW), ingress=[{"from": [pods(RAY)], "ports": mlflow}]),
    ]
