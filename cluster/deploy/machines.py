"""`ray up` files for AWS, GCP and own machines: Ray runs in our image there, with the token that this laptop has."""

from pathlib import Path
from typing import Any

from cluster.deploy.values import Machine, Values, Workers
from cluster.jobs.submit import STOP_SECONDS

_TOKEN = "/home/ray/.ray/auth_token"
# Where MLflow's client looks for user and password, on this laptop and in the containers.
_CREDENTIALS = ".mlflow/credentials"
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
        "file_mounts": _secrets(),
        "head_start_ray_commands": _start(head=True),
        "worker_start_ray_commands": _start(head=False),
    }


def _secrets() -> dict[str, str]:
    """What goes over SSH into each container: the token, and MLflow's user and password when this laptop has them."""
    mounts = {_TOKEN: "~/.ray/auth_token"}  # `ray get-auth-token --generate` makes it
    # `ray up` dies of a file that is not there.
    if (Path.home() / _CREDENTIALS).is_file():
        mounts[f"/home/ray/{_CREDENTIALS}"] = f"~/{_CREDENTIALS}"
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


def aws(values: Values) -> dict[str, Any]:
    """EC2 machines, with Ray's default image and a security group that lets only SSH in from outside."""

    def config(nodes: Machine) -> dict[str, Any]:
        disk = {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": values.rented.disk_gb, "VolumeType": "gp3"}}
        # Version 2 of the metadata service only: no URL can trick a job into fetching the machine's credentials.
        return {"InstanceType": nodes.aws, "BlockDeviceMappings": [disk], "MetadataOptions": {"HttpTokens": "required"}}

    provider = {"type": "aws", "region": values.rented.aws_region, "cache_stopped_nodes": False}
    return _common(values, provider) | _types(values, config)


def gcp(values: Values) -> dict[str, Any]:
    """Compute Engine machines."""

    def config(nodes: Machine) -> dict[str, Any]:
        image = {"diskSizeGb": values.rented.disk_gb, "sourceImage": values.rented.gcp_image}
        disk = {"boot": True, "autoDelete": True, "type": "PERSISTENT", "initializeParams": image}
        found: dict[str, Any] = {"machineType": nodes.gcp, "disks": [disk]}
        if nodes.gpus:  # a machine with a GPU cannot move to another host while it runs
            found["scheduling"] = [{"onHostMaintenance": "TERMINATE"}]
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
