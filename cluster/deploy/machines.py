"""`ray up` files for AWS, GCP and own machines: Ray runs in our image there, with the token that this laptop has."""

import configparser
from pathlib import Path
from typing import Any

from cluster.constants import STOP_SECONDS
from cluster.deploy.values import Machine, Values, Workers
from cluster.errors import ClusterError

_TOKEN = "/home/ray/.ray/auth_token"
# NVIDIA's container runtime, which `ray up` picks where it finds a GPU, shows a container only what these name.
_GPUS = {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}


def _start(head: bool) -> list[str]:
    # `ray stop` ends what runs in this container, which is ours alone. The dashboard stays on 127.0.0.1 of the head:
    # `ray dashboard FILE` forwards it over SSH. Ray's own ports are guarded by the token and the provider's firewall.
    role = "--head --port=6379 --autoscaling-config=~/ray_bootstrap_config.yaml --num-cpus=0"
    where = f"{role} --dashboard-host=127.0.0.1" if head else "--address=$RAY_HEAD_IP:6379"
    return ["ray stop", f"ulimit -n 65536; RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={_TOKEN} ray start {where}"]


def _common(values: Values, provider: dict[str, Any]) -> dict[str, Any]:
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": _TOKEN, "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
    if any(nodes.gpus for nodes in (values.head, *values.groups.values())):
        variables |= _GPUS  # on a machine without GPUs nothing reads them
    path = values.storage.path
    mount = [
        "(command -v mount.nfs4 || (sudo apt-get update && sudo apt-get install -y nfs-common)) > /dev/null",
        f"sudo mkdir -p {path} && (mountpoint -q {path} || sudo mount -t nfs4 {values.storage.nfs} {path})",
        # A new share belongs to root; the container's user is 1000.
        f"[ $(stat -c %u {path}) != 0 ] || sudo chown 1000 {path} || true",
    ]
    return {
        "cluster_name": values.name,
        "max_workers": sum(nodes.max for nodes in values.groups.values()),
        "idle_timeout_minutes": values.idle_minutes,
        "provider": provider,
        "auth": {"ssh_user": values.rented.ssh_user},
        "docker": {
            "image": values.image,
            "container_name": values.name,
            "run_options": [
                "--ulimit nofile=65536:65536",
                f"--volume {path}:{path}",
                *(f"--env {key}={value}" for key, value in variables.items()),
            ],
        },
        "initialization_commands": mount if values.storage.nfs else [],
        "file_mounts": _secrets(values),
        "head_start_ray_commands": _start(head=True),
        "worker_start_ray_commands": _start(head=False),
    }


def _secrets(values: Values) -> dict[str, str]:
    """What goes over SSH into each container: the token, and MLflow's user and password for nodes.

    Raises ClusterError when those are the administrator's: whoever may submit code can read them.
    """
    mounts = {_TOKEN: "~/.ray/auth_token"}  # `ray get-auth-token --generate` makes it
    # A file of its own: ~/.mlflow/credentials is the person's at this laptop, who may be the administrator.
    own = f".mlflow/{values.name}"
    file = Path.home() / own
    # `ray up` dies of a file that is not there.
    if file.is_file():
        parser = configparser.ConfigParser(interpolation=None)
        try:
            parser.read_string(file.read_text(encoding="utf-8"))
        except (configparser.Error, UnicodeDecodeError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise ClusterError(f"{file} is no credentials file of MLflow: {reason}") from None
        if parser.get("mlflow", "mlflow_tracking_username", fallback="") == "admin":
            raise ClusterError(
                f"{file} names MLflow's administrator, and nodes run what anybody submits; "
                "name the ordinary account there that mlflow-server.sh makes (docs/guides/cluster.md)"
            )
        mounts["/home/ray/.mlflow/credentials"] = f"~/{own}"
    return mounts


def _types(values: Values, config: Any) -> dict[str, Any]:
    def kind(node: Machine, cpus: int) -> dict[str, Any]:
        resources = {"CPU": cpus} | ({"GPU": node.gpus} if node.gpus else {})
        return {"resources": resources, "node_config": config(node)}

    def workers(nodes: Workers) -> dict[str, Any]:
        return kind(nodes, nodes.cpus) | {"min_workers": nodes.min, "max_workers": nodes.max}

    # The head gets no work, in line with num-cpus 0 of its start command.
    types = {"head": kind(values.head, cpus=0)}
    types |= {name: workers(nodes) for name, nodes in values.groups.items()}
    return {"head_node_type": "head", "available_node_types": types}


def _spot(nodes: Machine) -> bool:
    """Whether the provider may take such a machine back; never the head, whose end is the run's."""
    return isinstance(nodes, Workers) and nodes.spot


def aws(values: Values) -> dict[str, Any]:
    """EC2 machines, with Ray's default image and a security group that lets only SSH in from outside."""

    def config(nodes: Machine) -> dict[str, Any]:
        disk = {"VolumeSize": values.rented.disk_gb, "VolumeType": "gp3", "Encrypted": True}
        if values.rented.aws_kms_key:
            disk["KmsKeyId"] = values.rented.aws_kms_key
        found: dict[str, Any] = {
            "InstanceType": nodes.aws,
            "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": disk}],
            # Version 2 of the metadata service only: no URL can trick a job into fetching the machine's credentials.
            "MetadataOptions": {"HttpTokens": "required"},
        }
        if _spot(nodes):
            found["InstanceMarketOptions"] = {"MarketType": "spot"}
        return found

    provider = {"type": "aws", "region": values.rented.aws_region, "cache_stopped_nodes": False}
    return _common(values, provider) | _types(values, config)


def gcp(values: Values) -> dict[str, Any]:
    """Compute Engine machines."""

    def config(nodes: Machine) -> dict[str, Any]:
        image = {"diskSizeGb": values.rented.disk_gb, "sourceImage": values.rented.gcp_image}
        disk = {"boot": True, "autoDelete": True, "type": "PERSISTENT", "initializeParams": image}
        # Google encrypts every disk; the key is what one can choose.
        if values.rented.gcp_kms_key:
            disk["diskEncryptionKey"] = {"kmsKeyName": values.rented.gcp_kms_key}
        found: dict[str, Any] = {"machineType": nodes.gcp, "disks": [disk]}
        scheduling: dict[str, Any] = {}
        if nodes.gpus or _spot(nodes):  # neither can move to another host while it runs
            scheduling["onHostMaintenance"] = "TERMINATE"
        if _spot(nodes):
            # A stopped machine would keep its disk on the bill; Ray starts a new one anyway.
            scheduling |= {
                "provisioningModel": "SPOT",
                "instanceTerminationAction": "DELETE",
                "automaticRestart": False,
            }
        if scheduling:
            found["scheduling"] = scheduling
        if nodes.gpus:
            found["metadata"] = {"items": [{"key": "install-nvidia-driver", "value": "True"}]}
        return found

    rented = values.rented
    provider = {
        "type": "gcp",
        "region": rented.gcp_region,
        "availability_zone": rented.gcp_zone,
        "project_id": rented.gcp_project,
    }
    return _common(values, provider) | _types(values, config)


def own(values: Values) -> dict[str, Any]:
    """Machines that one has, reached by SSH; all of them are up as long as the cluster is."""
    head, workers = values.rented.head_ip, values.rented.worker_ips
    common = _common(values, {"type": "local", "head_ip": head, "worker_ips": workers})
    return common | {"max_workers": len(workers)}
