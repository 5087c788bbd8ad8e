"""KubeRay: a RayCluster to submit to, a RayJob that brings its own, and the storage both use."""

from pathlib import Path
from typing import Any

from cluster.constants import CODE, STOP_SECONDS
from cluster.deploy import mlflow_server, pods
from cluster.deploy.network import DASHBOARD, RAY, SUBMITTER
from cluster.deploy.values import Machine, Values
from cluster.jobs import run_spec as run


def _metadata(values: Values) -> dict[str, Any]:
    labels = {"app.kubernetes.io/part-of": values.name}
    if values.kueue_queue:
        labels["kueue.x-k8s.io/queue-name"] = values.kueue_queue
    return {"name": values.name, "namespace": values.namespace, "labels": labels}


def _pod(values: Values, nodes: Machine, role: str) -> dict[str, Any]:
    resources: dict[str, Any] = {"cpu": str(nodes.cpus), "memory": nodes.memory}
    if nodes.gpus:
        resources["nvidia.com/gpu"] = str(nodes.gpus)
    account = values.mlflow.account
    container: dict[str, Any] = {
        "name": f"ray-{role}",
        "image": values.image,
        "workingDir": CODE,
        "env": [
            {"name": "MLFLOW_TRACKING_URI", "value": mlflow_server.uri(values)},
            {"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": str(STOP_SECONDS)},
            {"name": "PYTHONPATH", "value": CODE},
            # The ordinary account: whoever may submit code here can read what these pods hold.
            pods.secret("MLFLOW_TRACKING_USERNAME", account, "username"),
            pods.secret("MLFLOW_TRACKING_PASSWORD", account, "password"),
        ],
        # Requests equal limits: Ray plans with the limits, and a pod over its memory is killed, not slowed.
        "resources": {"requests": resources, "limits": dict(resources)},
        "volumeMounts": [
            {"name": "storage", "mountPath": values.storage.path},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    }
    volumes: list[dict[str, Any]] = [
        {"name": "storage", "persistentVolumeClaim": {"claimName": f"{values.name}-storage"}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": values.shared_memory}},
    ]
    if role == "head":
        ports = {"gcs-server": 6379, "dashboard": DASHBOARD, "client": 10001}
        container["ports"] = [{"name": name, "containerPort": port} for name, port in ports.items()]
        if _scaling(values):
            volumes.append({"name": _API_TOKEN, "projected": {"sources": _token()}})
    return pods.template(
        values,
        RAY,
        [container],
        nodes=nodes,
        volumes=volumes,
        terminationGracePeriodSeconds=STOP_SECONDS,
    )


_API_TOKEN = "api-token"


def _token() -> list[dict[str, Any]]:
    """What Kubernetes itself would mount into every container of a pod, for one of them alone."""
    namespace = {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}
    authority = {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    return [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": authority},
        {"downwardAPI": {"items": [namespace]}},
    ]


def _scaling(values: Values) -> bool:
    # Kueue admits a fixed amount of work, so under it Ray does not scale: all workers are asked for at once.
    return not values.kueue_queue


def cluster_spec(values: Values) -> dict[str, Any]:
    """The spec of a RayCluster: token on, workers that come and go, nothing computed on the head."""
    scaling = _scaling(values)
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
        # The autoscaler makes and deletes pods, so its container needs a token of Kubernetes. It alone
        # gets it: the container beside it runs uploaded code.
        place = "/var/run/secrets/kubernetes.io/serviceaccount"
        spec["autoscalerOptions"] = {
            "upscalingMode": "Default",
            "idleTimeoutSeconds": 60 * values.idle_minutes,
            "securityContext": pods.security(),
            "volumeMounts": [{"name": _API_TOKEN, "mountPath": place, "readOnly": True}],
        }
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
    spec: dict[str, Any] = {
        "entrypoint": command,
        "submissionMode": "K8sJobMode",
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 60,
        "backoffLimit": values.retries,
        "submitterPodTemplate": _submitter(values),
        "rayClusterSpec": cluster_spec(values),
    }
    if values.kubernetes.deadline_minutes:
        spec["activeDeadlineSeconds"] = 60 * values.kubernetes.deadline_minutes
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": _metadata(values), "spec": spec}


def _submitter(values: Values) -> dict[str, Any]:
    """The pod that hands the command to the head; KubeRay adds its command, the address and the token."""
    container = {
        "name": "ray-job-submitter",
        "image": values.image,
        "resources": {
            "requests": {"cpu": "500m", "memory": "512Mi"},
            "limits": {"cpu": "1", "memory": "1Gi"},
        },
    }
    return pods.template(values, SUBMITTER, [container], restartPolicy="Never")


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
