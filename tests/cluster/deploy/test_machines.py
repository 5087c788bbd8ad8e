"""`ray up` files: Ray accepts them, disks are encrypted, nodes hold no more than they need."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from cluster.deploy import machines, render, values
from cluster.errors import ClusterError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "values.toml"
    file.write_text(render.VALUES.read_text())
    return file


def closed(schema: Any) -> Any:
    """Ray's schema with each object closed that lists its properties."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        schema.setdefault("additionalProperties", False)
        # Ray leaves the provider open, but names what it knows.
        schema["additionalProperties"] = False
    return schema


@pytest.mark.parametrize("provider", ["aws", "gcp", "own"])
@pytest.mark.parametrize("nfs", ["", "fs.example.org:/"])
def test_ray_up_files(source: Path, provider: str, nfs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(source.parent))
    source.write_text(source.read_text().replace('nfs = ""', f'nfs = "{nfs}"'))
    config = yaml.safe_load(yaml.safe_dump(getattr(machines, provider)(values.load(source))))
    schema = json.loads(Path(ray.autoscaler.__file__).with_name("ray-schema.json").read_text())
    jsonschema.validate(config, closed(schema))
    # Ray's own preparation as well, which `ray up` runs before it calls a provider; it makes absolute paths of mounts.
    (source.parent / ".ray").mkdir()
    (source.parent / ".ray/auth_token").write_text("token")
    validate_config(prepare_config(config))
    assert bool(config["initialization_commands"]) == bool(nfs)
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE=token" in commands[-1]
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config | {"max_worker": 1}, closed(schema))


@pytest.mark.parametrize("provider", ["aws", "gcp", "own"])
def test_containers_get_the_gpus_of_their_machine(source: Path, provider: str) -> None:
    wanted = {"--env NVIDIA_VISIBLE_DEVICES=all", "--env NVIDIA_DRIVER_CAPABILITIES=compute,utility"}
    assert wanted <= {*getattr(machines, provider)(values.load(source))["docker"]["run_options"]}
    source.write_text(source.read_text().replace("gpus = 1", "gpus = 0"))
    assert not wanted & {*getattr(machines, provider)(values.load(source))["docker"]["run_options"]}


def test_nodes_get_credentials_of_their_own_and_never_the_administrators(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    token = {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    (tmp_path / ".mlflow").mkdir()
    # The person's own, who may be the administrator.
    (tmp_path / ".mlflow/credentials").write_text("[mlflow]\nmlflow_tracking_username = admin\n")
    assert machines.aws(values.load(source))["file_mounts"] == token
    nodes = tmp_path / ".mlflow/wave"
    nodes.write_text("[mlflow]\nmlflow_tracking_username = wave\nmlflow_tracking_password = a%b\n")
    credentials = {"/home/ray/.mlflow/credentials": "~/.mlflow/wave"}
    for provider in (machines.aws, machines.gcp, machines.own):
        assert provider(values.load(source))["file_mounts"] == token | credentials
    nodes.write_text("[mlflow]\nmlflow_tracking_username = admin\nmlflow_tracking_password = x\n")
    with pytest.raises(ClusterError, match=r"\.mlflow/wave names MLflow's administrator"):
        machines.own(values.load(source))
    nodes.write_text("mlflow_tracking_username = admin\n")
    with pytest.raises(ClusterError, match="no credentials file of MLflow"):
        machines.own(values.load(source))


def nodes(source: Path, provider: str) -> dict[str, Any]:
    """Kind of machine -> what the provider is asked for."""
    types = getattr(machines, provider)(values.load(source))["available_node_types"]
    return {name: kind["node_config"] for name, kind in types.items()}


def test_workers_may_be_machines_that_the_provider_takes_back_and_the_head_never(source: Path) -> None:
    for provider in ("aws", "gcp"):
        assert "spot" not in str(nodes(source, provider)).lower()
    source.write_text(source.read_text().replace("spot = false", "spot = true"))
    found = nodes(source, "aws")
    assert found["cpu"]["InstanceMarketOptions"] == found["gpu"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in found["head"]
    found = nodes(source, "gcp")
    wanted = {
        "provisioningModel": "SPOT",
        "instanceTerminationAction": "DELETE",
        "automaticRestart": False,
        "onHostMaintenance": "TERMINATE",
    }
    assert found["cpu"]["scheduling"] == found["gpu"]["scheduling"] == wanted
    assert "scheduling" not in found["head"]


def test_a_machine_with_a_gpu_on_gcp_is_not_moved(source: Path) -> None:
    found = nodes(source, "gcp")
    # An object, as Compute Engine's own description has it, not a list.
    assert found["gpu"]["scheduling"] == {"onHostMaintenance": "TERMINATE"}
    assert "scheduling" not in found["cpu"]


@pytest.mark.parametrize("key", ["", "arn:aws:kms:eu-central-1:1:key/k"])
def test_disks_of_aws_are_encrypted(source: Path, key: str) -> None:
    source.write_text(source.read_text().replace('aws_kms_key = ""', f'aws_kms_key = "{key}"'))
    for config in nodes(source, "aws").values():
        (disk,) = config["BlockDeviceMappings"]
        assert disk["Ebs"]["Encrypted"] is True
        assert disk["Ebs"].get("KmsKeyId", "") == key


@pytest.mark.parametrize("key", ["", "projects/p/locations/l/keyRings/r/cryptoKeys/k"])
def test_disks_of_gcp_take_a_key(source: Path, key: str) -> None:
    source.write_text(source.read_text().replace('gcp_kms_key = ""', f'gcp_kms_key = "{key}"'))
    for config in nodes(source, "gcp").values():
        (disk,) = config["disks"]
        assert disk.get("diskEncryptionKey", {}).get("kmsKeyName", "") == key
