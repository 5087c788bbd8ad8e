"""How the shared MLflow server is started: the same arguments in Kubernetes and on a rented machine."""

from pathlib import Path
from typing import Any

from cluster.deploy import mlflow_account, pods
from cluster.deploy.network import MLFLOW
from cluster.deploy.values import Values

# The program that makes the ordinary account; what we render stands alone, so it holds the text.
_ACCOUNT = Path(mlflow_account.__file__).read_text(encoding="utf-8")
_READY = "/tmp/account-is-there"  # in the account's container


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
: "${{WAVE_MLFLOW_PASSWORD:?set a password of 12 or more characters for the account that the nodes use}}"
export MLFLOW_AUTH_ADMIN_PASSWORD MLFLOW_FLASK_SERVER_SECRET_KEY WAVE_MLFLOW_PASSWORD
export WAVE_MLFLOW_USERNAME="${{WAVE_MLFLOW_USERNAME:-{values.name}}}"
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true
mkdir -p "$folder/artifacts"
cd "$folder"   # the users are kept in basic_auth.db here
folder=$PWD
# Once the server answers, this makes the nodes' account and ends; if it cannot, it ends the server.
(python3 - "http://$host:{values.mlflow.port}" $$ <<'ACCOUNT' || kill $$ 2>/dev/null
{_ACCOUNT}ACCOUNT
) &
unset WAVE_MLFLOW_PASSWORD
exec {quoted}
"""


def manifests(values: Values) -> list[dict[str, Any]]:
    """Claim, Deployment and Service."""
    name, folder = service(values), "/mlflow"
    labels = pods.labels(values, MLFLOW)
    metadata = {"name": name, "namespace": values.namespace, "labels": labels}

    wanted = values.mlflow
    administrator = [
        pods.secret("MLFLOW_AUTH_ADMIN_USERNAME", wanted.secret, "username"),
        pods.secret("MLFLOW_AUTH_ADMIN_PASSWORD", wanted.secret, "password"),
    ]
    health = {"httpGet": {"path": "/health", "port": "http"}}
    server = {
        "name": "mlflow",
        "image": values.image,
        "command": arguments(values, folder, "0.0.0.0"),
        "workingDir": folder,  # the users are kept in basic_auth.db there
        "env": [
            {"name": "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "value": "false"},
            {"name": "MLFLOW_DISABLE_TELEMETRY", "value": "true"},
            *administrator,
            pods.secret("MLFLOW_FLASK_SERVER_SECRET_KEY", wanted.secret, "session-key"),
        ],
        "ports": [{"name": "http", "containerPort": wanted.port}],
        # A new version of MLflow migrates the store before it answers: half an hour for that.
        "startupProbe": health | {"periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 180},
        # 60 slow uploads that begin at once made the server answer after 1.4 s, and after more than
        # 10 s where others had the CPUs; a probe's usual limit is 1 s. It is the only server: taken
        # out of the Service it helps nobody, and a restart ends the uploads.
        "readinessProbe": health | {"periodSeconds": 10, "timeoutSeconds": 30, "failureThreshold": 6},
        "livenessProbe": health | {"periodSeconds": 30, "timeoutSeconds": 30, "failureThreshold": 10},
        "resources": {"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "4Gi"}},
        "volumeMounts": [{"name": "store", "mountPath": folder}],
    }
    ready = {"exec": {"command": ["test", "-e", _READY]}}
    account = {
        "name": "account",
        "image": values.image,
        "command": ["python", "-c", _ACCOUNT, f"http://127.0.0.1:{wanted.port}", _READY],
        "env": [
            *administrator,
            pods.secret("WAVE_MLFLOW_USERNAME", wanted.account, "username"),
            pods.secret("WAVE_MLFLOW_PASSWORD", wanted.account, "password"),
        ],
        # The Service sends nobody here before the account is there.
        "readinessProbe": ready | {"periodSeconds": 5, "timeoutSeconds": 10},
        "resources": {
            "requests": {"cpu": "50m", "memory": "64Mi"},
            "limits": {"memory": "128Mi"},
        },
    }
    volumes = [{"name": "store", "persistentVolumeClaim": {"claimName": name}}]
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": wanted.size}}}
    deployment = {
        "replicas": 1,
        "strategy": {"type": "Recreate"},  # two servers must never write one SQLite file
        "selector": {"matchLabels": labels},
        "template": pods.template(values, MLFLOW, [server, account], volumes=volumes),
    }
    ports = [{"name": "http", "port": wanted.port, "targetPort": "http"}]
    return [
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": claim},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": deployment},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"selector": labels, "ports": ports}},
    ]
