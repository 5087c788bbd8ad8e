"""Values are read strictly, and what is rendered of them is whole."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from mlflow.cli import server as mlflow_server

from cluster.deploy import render, values
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
        ("[head] ", "[head]\nmax = 1\n#", "unknown key head.max; known are cpus, gpus, memory, aws, gcp, node_s"),
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
        ('digest = ""', 'digest = "2.60.0"', "versions.digest '2.60.0' must read sha256: and 64 digits"),
        ('account = "wave-', 'account = "Wave-', "mlflow.account 'Wave-mlflow-account' must be small letters"),
        ('account = "wave-mlflow-account"', 'account = "wave-mlflow"', "mlflow has one Secret, wave-mlflow, for"),
        ("pull_secrets = []", 'pull_secrets = "a"', "kubernetes.pull_secrets must be a list"),
        ("annotations = {}", 'annotations = { "a b" = "" }', "kubernetes.annotations.a b 'a b' must be a key"),
        ("annotations = {}", "annotations = { a = true }", "kubernetes.annotations.a must be text, not True"),
        ("deadline_minutes = 0", "deadline_minutes = -1", "kubernetes.deadline_minutes must be a whole number from 0"),
        ('operator = "default"', 'operator = ""', "kubernetes.operator '' must be up to 40 small letters"),
        ("outside = []", 'outside = ["huggingface.co"]', "kubernetes.outside.0 'huggingface.co' must be a network"),
        ("outside = []", 'outside = ["10.0.0.1/8"]', "kubernetes.outside.0 '10.0.0.1/8' must be a network"),
        ("spot = false", 'spot = "no"', "workers.cpu.spot must be true or false, not 'no'"),
        ('aws_kms_key = ""', 'aws_kms_key = "a b"', "rented.aws_kms_key 'a b' must name a key"),
        (
            "tolerations = []  ",
            "tolerations = [{ kye = 1 }] #",
            "unknown key kubernetes.tolerations.0.kye; did you mean key?",
        ),
        (
            "tolerations = []  ",
            'tolerations = [{ key = "a", operator = "exists" }] #',
            "kubernetes.tolerations.0.operator must be 'Equal' or 'Exists', not 'exists'",
        ),
        (
            "tolerations = []  ",
            'tolerations = [{ key = "a", operator = "Exists", value = "b" }] #',
            "kubernetes.tolerations.0 has the operator Exists and the value b; only Equal has one",
        ),
    ],
)
def test_values_are_read_strictly(source: Path, old: str, new: str, message: str) -> None:
    text = source.read_text()
    assert old in text
    source.write_text(text.replace(old, new, 1 if "tolerations" in old else -1))
    with pytest.raises(ClusterError, match=re.escape(message)) as caught:
        values.load(source)
    assert str(source) in str(caught.value)


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
    with pytest.raises(ClusterError, match=r"digits\.toml: no such file"):
        render.write(source, tmp_path / "out", tmp_path)
    experiment = tmp_path / values.load(source).run
    experiment.parent.mkdir(parents=True)
    shutil.copy(ROOT / values.load(source).run, experiment)
    written = render.write(source, tmp_path / "out", tmp_path)
    assert len(written) == 10
    assert all("password" not in file.read_text().lower() or "PASSWORD" in file.read_text() for file in written)
    with pytest.raises(ClusterError, match="cannot be written"):
        render.write(source, Path("/dev/null/out"), tmp_path)
