"""Values are read strictly; `ray up` files, image and script hold together."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from mlflow.cli import server as mlflow_server
from ray.autoscaler._private.util import prepare_config, validate_config

from cluster.deploy import machines, render, values
from cluster.deploy.mlflow_server import script
from cluster.errors import ClusterError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "values.toml"
    file.write_text(render.VALUES.read_text())
    return file


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("shared_memory", "shared_memry", "unknown key shared_memry; did you mean shared_memory?"),
        ("nfs =", "nsf =", "unknown key storage.nsf; did you mean nfs?"),
        ("cpus = 8", 'cpus = "8"', "workers.cpu.cpus must be a whole number"),
        ("cpus = 8", "cpus = -8", "workers.cpu.cpus must be a whole number"),
        ("port = 5000", "port = true", "mlflow.port must be a whole number"),
        ("hosts = []", 'hosts = "a"', "mlflow.hosts must be a list"),
        ('ray = "2.60.0"', 'ray = ">=2"', "versions.ray '>=2' must be one exact version"),
        ('name = "wave"', 'name = "Wave_1"', "small letters"),
        ('path = "/mnt/wave"', 'path = "mnt"', "storage.path 'mnt' must be an absolute folder of letters"),
        (
            'path = "/mnt/wave"',
            'path = "/mnt/$(id)"',
            "storage.path '/mnt/$(id)' must be an absolute folder of letters",
        ),
        ('path = "/mnt/wave"', 'path = "/mnt/a b"', "must be an absolute folder of letters"),
        ('path = "/mnt/wave"', 'path = "/mnt/../etc"', "storage.path '/mnt/../etc' must name no folder above"),
        ('path = "/mnt/wave"', 'path = "/"', "must be an absolute folder of letters"),
        ('nfs = ""', 'nfs = "h:/e; id"', "storage.nfs 'h:/e; id' must read HOST:/export"),
        ('image = "wave:2.60.0"', 'image = ""', "image '' must name an image"),
        ('image = "wave:2.60.0"', 'image = "-v wave"', "must name an image"),
        (
            "pipelines/experiments/digits.toml",
            "../outside.toml",
            "run '../outside.toml' must be a TOML file below pipelines/",
        ),
        ("pipelines/experiments/digits.toml", "pipelines/../outside.toml", "must name no folder above"),
        ("pipelines/experiments/digits.toml", "/etc/outside.toml", "must be a TOML file below pipelines/"),
        ("pipelines/experiments/digits.toml", "", "must be a TOML file below pipelines/"),
        ('memory = "16Gi"', 'memory = "16 GB"', "head.memory '16 GB' must be a Kubernetes quantity"),
        ('memory = "32Gi"', 'memory = "32GiB"', "workers.cpu.memory '32GiB' must be a Kubernetes quantity"),
        ('shared_memory = "8Gi"', 'shared_memory = ""', "shared_memory '' must be a Kubernetes quantity"),
        ('size = "20Gi"', 'size = "-20Gi"', "mlflow.size '-20Gi' must be a Kubernetes quantity"),
        ("max = 4", "min = 4", "is not TOML"),
        ("min = 0", "min = 5", "workers.cpu has min = 5 and max = 4; 0 <= min <= max"),
        ("[head] ", "[head]\nmax = 1\n#", "unknown key head.max; known are cpus, gpus, memory, aws, gcp"),
        ("port = 5000", "port = 70000", "mlflow.port must be at most 65535, not 70000"),
        ("port = 5000", "port = 0", "mlflow.port must be a whole number from 1, not 0"),
        ('secret = "wave-mlflow"', 'secret = "My Secret"', "mlflow.secret 'My Secret' must be small letters"),
        ('kueue_queue = ""', 'kueue_queue = "Team A"', "kueue_queue 'Team A' must be up to 40 small letters"),
        ("hosts = []", 'hosts = ["a:5000", "b c"]', "mlflow.hosts.1 'b c' must be a name, as in"),
        ('head_ip = "10.0.0.1"', 'head_ip = "10.0.0.1:22"', "rented.head_ip '10.0.0.1:22' must be a host's name"),
        ('class = ""', 'class = "Fast"', "storage.class 'Fast' must be small letters"),
        ("[workers.gpu]", "[workers.GPU]", "workers.GPU 'GPU' must be up to 40 small letters"),
        ("[workers.gpu]", "[workers.head]", "workers.head 'head' is the head's own name"),
        ("retries = 2 ", "retries = 10000000000 #", "retries must be at most 1000000, not 10000000000"),
        ('memory = "16Gi"', 'memory = "0Gi"', "head.memory '0Gi' must be a Kubernetes quantity"),
        ("cpus = 4", "cpus = 0", "head.cpus must be a whole number from 1, not 0"),
        ("[rented]", "[rented.more]", "unknown key rented.more; known are ssh_user"),
        ("retries = 2 ", "# ", "retries is missing"),
    ],
)
def test_values_are_read_strictly(source: Path, old: str, new: str, message: str) -> None:
    text = source.read_text()
    assert old in text
    source.write_text(text.replace(old, new))
    with pytest.raises(ClusterError, match=re.escape(message)) as caught:
        values.load(source)
    assert str(source) in str(caught.value)


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


def test_nodes_get_the_credentials_for_mlflow_that_the_laptop_has(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    token = {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    assert machines.aws(values.load(source))["file_mounts"] == token
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow/credentials").write_text("[mlflow]\n")
    credentials = {"/home/ray/.mlflow/credentials": "~/.mlflow/credentials"}
    assert machines.aws(values.load(source))["file_mounts"] == token | credentials


def test_the_mlflow_script_is_a_shell_script_with_options_that_mlflow_knows(source: Path, tmp_path: Path) -> None:
    text = script(values.load(source))
    subprocess.run(["sh", "-n"], input=text, text=True, check=True)
    known = {option for parameter in mlflow_server.params for option in parameter.opts}
    assert {*re.findall(r"(?<=\s)--[a-z-]+", text)} <= known
    file = tmp_path / "server.sh"
    file.write_text(text)
    plain = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    refused = subprocess.run(
        ["sh", str(file), str(tmp_path / "s")], env=plain, capture_output=True, text=True, check=False
    )
    assert refused.returncode
    assert "MLFLOW_AUTH_ADMIN_PASSWORD" in refused.stderr


def test_write_and_its_mistakes(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"digits\.toml cannot be read"):
        render.write(source, tmp_path / "out", tmp_path)
    experiment = tmp_path / values.load(source).run
    experiment.parent.mkdir(parents=True)
    experiment.write_text('name = "digits"\n')
    written = render.write(source, tmp_path / "out", tmp_path)
    assert len(written) == 9
    assert all("password" not in file.read_text().lower() or "PASSWORD" in file.read_text() for file in written)
    with pytest.raises(ClusterError, match="cannot be written"):
        render.write(source, Path("/dev/null/out"), tmp_path)
