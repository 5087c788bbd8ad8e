"""KubeRay: a RayCluster to submit to, a RayJob that brings its own, and the storage both use."""

from pathlib import Path
from typing import Any

from cluster.deploy import mlflow_server
from cluster.deploy.values import Machine, Values
from cluster.jobs import run_spec as run
from cluster.jobs.submit import STOP_SECONDS

CODE = "/home/ray/wave"  # where the image has the code


def _metadata(values: Values) -> dict[str, Any]:
    labels = {"app.kubernetes.io/part-of": values.name}
    if values.kueue_queue:
        labels["kueue.x-k8s.io/queue-name"] = values.kueue_queue
    return {"name": values.name, "namespace": values.namespace, "labels": labels}


def _pod(values: Values, nodes: Machine, role: str) -> dict[str, Any]:
    resources: dict[str, Any] = {"cpu": str(nodes.cpus), "memory": nodes.memory}
    if nodes.gpus:
        resources["nvidia.com/gpu"] = str(nodes.gpus)
    secret = values.mlflow.secret
    env: list[dict[str, Any]] = [
        {"name": "MLFLOW_TRACKING_URI", "value": mlflow_server.uri(values)},
        {"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": str(STOP_SECONDS)},
        {"name": "PYTHONPATH", "value": CODE},
    ]
    for variable, key in (("MLFLOW_TRACKING_USERNAME", "username"), ("MLFLOW_TRACKING_PASSWORD", "password")):
        env.append({"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
    container: dict[str, Any] = {
        "name": f"ray-{role}",
        "image": values.image,
        "workingDir": CODE,
        "env": env,
        # Requests equal limits: Ray plans with the limits, and a pod over its memory is killed, not slowed.
        "resources": {"requests": resources, "limits": dict(resources)},
        "volumeMounts": [
            {"name": "storage", "mountPath": values.storage.path},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    if role == "head":
        ports = {"gcs-server": 6379, "dashboard": 8265, "client": 10001}
        container["ports"] = [{"name": name, "containerPort": port} for name, port in ports.items()]
    pod: dict[str, Any] = {
        "containers": [container],
        "volumes": [
            {"name": "storage", "persistentVolumeClaim": {"claimName": f"{values.name}-storage"}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": values.shared_memory}},
        ],
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000},
        "terminationGracePeriodSeconds": STOP_SECONDS,
    }
    if nodes.gpus:
        pod["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    return {"spec": pod}


def cluster_spec(values: Values) -> dict[str, Any]:
    """The spec of a RayCluster: token on, workers that come and go, nothing computed on the head."""
    # Kueue admits a fixed amount of work, so under it Ray does not scale: all workers are asked for at once.
    scaling = not values.kueue_queue
    groups = [
        {
            "groupName": name,
            "replicas": nodes.min if scaling else nodes.max,
            "minReplicas": nodes.min if scaling else nodes.max,
            "maxReplicas": nodes.max,
            "rayStartParams": {},
            "template": _pod(values, nodes, "worker"),
        }
        for name, nodes in values.groups.items()
    ]
    spec: dict[str, Any] = {
        "rayVersion": values.versions.ray,
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": scaling,
        "headGroupSpec": {
            # The dashboard must be reached by other pods; the token guards it.
            "rayStartParams": {"dashboard-host": "0.0.0.0", "num-cpus": "0"},
            "template": _pod(values, values.head, "head"),
        },
        "workerGroupSpecs": groups,
    }
    if scaling:
        spec["autoscalerOptions"] = {"upscalingMode": "Default", "idleTimeoutSeconds": 60 * values.idle_minutes}
    return spec


def ray_cluster(values: Values) -> dict[str, Any]:
    """A cluster that stays, for `python -m cluster submit`."""
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": _metadata(values),
        "spec": cluster_spec(values),
    }


def ray_job(values: Values, root: Path) -> dict[str, Any]:
    """One run, of a file below `root`, with a cluster of its own; a retry is a new cluster that continues the run."""
    wanted = run.load(root / values.run, tuple(values.set))
    # No shell syntax beside quotes: KubeRay splits this text and joins it again.
    tracking = run.tracking(wanted, mlflow_server.uri(values), "")
    command = run.command(f"{CODE}/{values.run}", wanted, values.storage.path, tracking)
    spec = {
        "entrypoint": command,
        "submissionMode": "K8sJobMode",
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 60,
        "backoffLimit": values.retries,
        "rayClusterSpec": cluster_spec(values),
    }
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": _metadata(values), "spec": spec}


def storage(values: Values) -> dict[str, Any]:
    """The claim for the folder that every node sees."""
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": values.storage.size}},
    }
    if values.storage.storage_class:
        spec["storageClassName"] = values.storage.storage_class
    metadata = {"name": f"{values.name}-storage", "namespace": values.namespace}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}
