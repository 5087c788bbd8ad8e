"""What every pod has: what Pod Security "restricted" requires, labels, and where it may run."""

from typing import Any

from cluster.deploy.values import Machine, Values

_SECCOMP = {"type": "RuntimeDefault"}


def labels(values: Values, component: str) -> dict[str, str]:
    """The labels by which services and network policies know a pod."""
    return {
        "app.kubernetes.io/part-of": values.name,
        "app.kubernetes.io/component": component,
    }


def secret(variable: str, name: str, key: str) -> dict[str, Any]:
    """An environment variable whose value is `key` of the Secret `name`."""
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}


def security() -> dict[str, Any]:
    """A container's security context.

    Pod Security takes most of it from the pod as well, but KubeRay adds containers of its own:
    they get the context of the container beside them, or the one that we name for them.
    """
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": dict(_SECCOMP),
    }


def template(
    values: Values,
    component: str,
    containers: list[dict[str, Any]],
    *,
    nodes: Machine | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A pod template of `containers`, placed as `nodes` are; `more` are further fields of its spec."""
    wanted = values.kubernetes
    selector = wanted.node_selector | (nodes.node_selector if nodes else {})
    taints = [*wanted.tolerations, *(nodes.tolerations if nodes else [])]
    tolerations = [taint.model_dump(exclude_defaults=True) for taint in taints]
    if nodes and nodes.gpus:
        gpus = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
        tolerations.append(gpus)
    spec: dict[str, Any] = {
        "containers": [part | {"securityContext": security()} for part in containers],
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "fsGroup": 1000,
            "seccompProfile": dict(_SECCOMP),
        },
        # Nothing here speaks to Kubernetes but the autoscaler, which gets a token of its own.
        "automountServiceAccountToken": False,
    } | more
    if selector:
        spec["nodeSelector"] = selector
    if tolerations:
        spec["tolerations"] = tolerations
    if wanted.priority_class:
        spec["priorityClassName"] = wanted.priority_class
    if wanted.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in wanted.pull_secrets]
    metadata: dict[str, Any] = {"labels": labels(values, component)}
    if wanted.annotations:
        metadata["annotations"] = dict(wanted.annotations)
    return {"metadata": metadata, "spec": spec}
