"""How the shared MLflow server is started: the same arguments in Kubernetes and on a rented machine."""

from typing import Any

from cluster.deploy.values import Values


def service(values: Values) -> str:
    """The server's name in Kubernetes."""
    return f"{values.name}-mlflow"


def uri(values: Values) -> str:
    """The server's address inside Kubernetes."""
    return f"http://{service(values)}.{values.namespace}:{values.mlflow.port}"


def arguments(values: Values, folder: str, host: str) -> list[str]:
    """The command that serves the store in `folder` on `host`, with basic authentication.

    MLflow refuses every Host header but the known ones (403). `--allowed-hosts` replaces its list, so the names for
    this machine, which port forwarding uses, stand there too.
    """
    name, port = service(values), values.mlflow.port
    names = [
        name,
        f"{name}.{values.namespace}",
        f"{name}.{values.namespace}.svc",
        f"{name}.{values.namespace}.svc.cluster.local",
    ]
    hosts = [f"{host}:{port}" for host in (*names, "localhost", "127.0.0.1")]
    hosts += [text for extra in values.mlflow.hosts for text in (extra, f"{extra}:{port}")]
    return [
        *("mlflow", "server", "--app-name", "basic-auth", "--host", host, "--port", str(port), "--workers", "2"),
        *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/artifacts"),
        *("--allowed-hosts", ",".join(hosts)),
    ]


def script(values: Values) -> str:
    """A shell script for a machine that is not in Kubernetes; it listens on 127.0.0.1 unless told."""
    command = arguments(values, "$folder", "$host")
    quoted = " ".join(f'"{part}"' if "$" in part else f"'{part}'" if "," in part else part for part in command)
    return f"""#!/bin/sh
# The MLflow server of {values.name}. Usage: mlflow-server.sh FOLDER [ADDRESS], ADDRESS being this machine's own in the
# network of the nodes; name it in mlflow.hosts of values.toml as well.
# Before: pip install -c constraints.txt 'mlflow[auth]'
set -eu
folder=${{1:?give the folder of the store}}
host=${{2:-127.0.0.1}}
: "${{MLFLOW_AUTH_ADMIN_PASSWORD:?set a password of 12 or more characters}}"
: "${{MLFLOW_FLASK_SERVER_SECRET_KEY:?set a long random text; it must stay the same}}"
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
mkdir -p "$folder/artifacts"
cd "$folder"   # the users are kept in basic_auth.db here
folder=$PWD
exec {quoted}
"""


def manifests(values: Values) -> list[dict[str, Any]]:
    """Claim, Deployment and Service."""
    name, folder = service(values), "/mlflow"
    labels = {"app.kubernetes.io/name": "mlflow", "app.kubernetes.io/part-of": values.name}
    metadata = {"name": name, "namespace": values.namespace, "labels": labels}

    def secret(variable: str, key: str) -> dict[str, Any]:
        return {"name": variable, "valueFrom": {"secretKeyRef": {"name": values.mlflow.secret, "key": key}}}

    container = {
        "name": "mlflow",
        "image": values.image,
        "command": arguments(values, folder, "0.0.0.0"),
        "workingDir": folder,  # the users are kept in basic_auth.db there
        "env": [
            {"name": "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "value": "false"},
            secret("MLFLOW_AUTH_ADMIN_USERNAME", "username"),
            secret("MLFLOW_AUTH_ADMIN_PASSWORD", "password"),
            secret("MLFLOW_FLASK_SERVER_SECRET_KEY", "session-key"),
        ],
        "ports": [{"name": "http", "containerPort": values.mlflow.port}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 5},
        "livenessProbe": {
            "httpGet": {"path": "/health", "port": "http"},
            "initialDelaySeconds": 60,
            "periodSeconds": 20,
        },
        "resources": {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "4Gi"}},
        "volumeMounts": [{"name": "store", "mountPath": folder}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod = {
        "containers": [container],
        "volumes": [{"name": "store", "persistentVolumeClaim": {"claimName": name}}],
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000},
        "automountServiceAccountToken": False,
    }
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": values.mlflow.size}}}
    deployment = {
        "replicas": 1,
        "strategy": {"type": "Recreate"},  # two servers must never write one SQLite file
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    ports = [{"name": "http", "port": values.mlflow.port, "targetPort": "http"}]
    return [
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": claim},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": deployment},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"selector": labels, "ports": ports}},
    ]
