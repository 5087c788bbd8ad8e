"""Who reaches whom under network policies: what Kubernetes says they mean, for pods and addresses."""

import ipaddress
from dataclasses import dataclass, field
from typing import Any

_NAME = "kubernetes.io/metadata.name"


@dataclass(frozen=True)
class Pod:
    """A pod, by what policies know of it."""

    namespace: str
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Address:
    """Something outside the cluster, or the host of a node."""

    address: str


Place = Pod | Address


def reaches(policies: list[dict[str, Any]], source: Place, target: Place, port: int, protocol: str = "TCP") -> bool:
    """Whether `source` may open a connection to `port` of `target`: both ends have to allow it."""
    ways = (("Egress", "to", source, target), ("Ingress", "from", target, source))
    for direction, key, at, other in ways:
        mine = [policy["spec"] for policy in policies if _names(policy, at, direction)]
        # A place that no policy names is open in that direction.
        allowed = not mine or any(
            _rule(rule, key, other, port, protocol, policy["metadata"]["namespace"])
            for policy in policies
            if _names(policy, at, direction)
            for rule in policy["spec"].get(direction.lower(), [])
        )
        if not allowed:
            return False
    return True


def _names(policy: dict[str, Any], place: Place, direction: str) -> bool:
    spec = policy["spec"]
    default = ["Ingress", "Egress"] if "egress" in spec else ["Ingress"]
    return (
        isinstance(place, Pod)
        and place.namespace == policy["metadata"]["namespace"]
        and direction in spec.get("policyTypes", default)
        and _selects(spec["podSelector"], place.labels)
    )


def _rule(rule: dict[str, Any], key: str, other: Place, port: int, protocol: str, namespace: str) -> bool:
    # No ports, or no peers, means any of them.
    ports, peers = rule.get("ports"), rule.get(key)
    right_port = not ports or any(_port(known, port, protocol) for known in ports)
    return right_port and (not peers or any(_peer(peer, other, namespace) for peer in peers))


def _port(known: dict[str, Any], port: int, protocol: str) -> bool:
    first = known.get("port", port)
    assert isinstance(first, int), "ports with names are not known here"
    return known.get("protocol", "TCP") == protocol and first <= port <= known.get("endPort", first)


def _peer(peer: dict[str, Any], other: Place, namespace: str) -> bool:
    if block := peer.get("ipBlock"):
        if isinstance(other, Pod):
            return False
        address = ipaddress.ip_address(other.address)
        excepted = any(address in ipaddress.ip_network(part) for part in block.get("except", []))
        return address in ipaddress.ip_network(block["cidr"]) and not excepted
    if isinstance(other, Address):
        return False
    if "namespaceSelector" in peer:
        right = _selects(peer["namespaceSelector"], {_NAME: other.namespace})
    else:
        right = other.namespace == namespace
    return right and _selects(peer.get("podSelector", {}), other.labels)


def _selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    assert not selector.keys() - {"matchLabels"}, "expressions are not known here"
    return selector.get("matchLabels", {}).items() <= labels.items()
