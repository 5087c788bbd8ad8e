"""The Kubernetes manifests against KubeRay's own definitions, unknown fields refused."""

import copy
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.cluster import schemas
from tests.cluster.deploy import rendered
from tests.cluster.deploy.rendered import change, documents


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return rendered.source(tmp_path)


@pytest.mark.parametrize("queue", ["", "team-a"])
@pytest.mark.parametrize(("name", "plural"), [("raycluster", "rayclusters"), ("rayjob", "rayjobs")])
def test_kuberay_accepts_the_manifest(source: Path, name: str, plural: str, queue: str) -> None:
    change(source, 'kueue_queue = ""', f'kueue_queue = "{queue}"')
    (manifest,) = documents(source, name)
    schemas.check(manifest, schemas.definition(plural))
    spec = manifest["spec"].get("rayClusterSpec", manifest["spec"])
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"] is not bool(queue)
    assert manifest["metadata"]["labels"].get("kueue.x-k8s.io/queue-name", "") == queue
    gpu = next(group for group in spec["workerGroupSpecs"] if group["groupName"] == "gpu")
    assert gpu["minReplicas"] == (gpu["maxReplicas"] if queue else 0)
    container = gpu["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "authOption"), {"mode": "token"}),
        (("spec", "authOptions", "mode"), "tokens"),
        (("spec", "workerGroupSpecs", 0, "minReplica"), 1),
        (("spec", "workerGroupSpecs", 0, "maxReplicas"), "4"),
        (("spec", "headGroupSpec", "template", "spec", "containers", 0, "envs"), []),
        (("spec", "headGroupSpec", "template", "spec", "containers", 0, "env", 0, "val"), "x"),
        (("spec", "headGroupSpec", "template", "spec", "volumes", 1, "emptyDir", "medum"), "Memory"),
        (("metadata", "label"), {}),
    ],
)
def test_the_strict_schema_refuses_a_slip(source: Path, path: tuple[str | int, ...], value: Any) -> None:
    schema = schemas.definition("rayclusters")
    (manifest,) = copy.deepcopy(documents(source, "raycluster"))
    place: Any = manifest
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        schemas.check(manifest, schema)


def plain(kind: str) -> dict[str, Any]:
    """The strict schema of a whole document of Kubernetes itself; KubeRay's definition embeds most of it."""
    group = schemas.part(schemas.definition("rayclusters"), "spec", "headGroupSpec")
    if kind == "PersistentVolumeClaim":
        claim = schemas.part(group, "template", "spec", "volumes", "[]", "ephemeral", "volumeClaimTemplate", "spec")
        return schemas.whole("v1", kind, claim)
    if kind == "Service":
        return schemas.whole("v1", kind, schemas.part(group, "headService", "spec"))
    return schemas.whole("apps/v1", kind, schemas.deployment(schemas.part(group, "template", "spec")))


def test_mlflow_and_storage_hold_to_strict_schemas(source: Path) -> None:
    for document in (*documents(source, "mlflow"), *documents(source, "storage")):
        schemas.check(document, plain(document["kind"]))
    _, deployment, service = documents(source, "mlflow")
    (shared,) = documents(source, "storage")
    assert shared["spec"]["accessModes"] == ["ReadWriteMany"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels == service["spec"]["selector"]


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Deployment", ("speck",), {}),
        ("Deployment", ("apiVersion",), "v1"),
        ("Deployment", ("metadata", "namespaces"), "default"),
        ("Deployment", ("metadata", "labels", "a"), 1),
        ("Deployment", ("spec", "replica"), 1),
        ("Deployment", ("spec", "replicas"), "1"),
        ("Deployment", ("spec", "strategy", "type"), "Recreated"),
        ("Deployment", ("spec", "selector", "matchLabel"), {}),
        ("Deployment", ("spec", "template", "metadata", "label"), {}),
        ("Deployment", ("spec", "template", "specs"), {}),
        ("Deployment", ("spec", "template", "spec", "containers", 0, "workDir"), "/"),
        ("Service", ("metadata", "label"), {}),
        ("Service", ("kinds",), "Service"),
        ("Service", ("spec", "port"), []),
        ("Service", ("spec", "ports", 0, "targetport"), "http"),
        ("PersistentVolumeClaim", ("metadata", "nam"), "x"),
        ("PersistentVolumeClaim", ("spec", "storageClass"), "x"),
    ],
)
def test_the_strict_schemas_of_mlflow_refuse_a_slip(
    source: Path, kind: str, path: tuple[str | int, ...], value: Any
) -> None:
    document = next(document for document in documents(source, "mlflow") if document["kind"] == kind)
    place: Any = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        schemas.check(document, plain(kind))


def test_mlflow_knows_the_names_it_is_called_by_and_asks_for_a_password(source: Path) -> None:
    change(source, "hosts = []", 'hosts = ["mlflow.example.org"]')
    _, deployment, service = documents(source, "mlflow")
    (job,) = documents(source, "rayjob")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    hosts = container["command"][container["command"].index("--allowed-hosts") + 1].split(",")
    name, port = service["metadata"]["name"], service["spec"]["ports"][0]["port"]
    assert {
        f"{name}:{port}",
        f"{name}.default.svc.cluster.local:{port}",
        "mlflow.example.org",
        f"localhost:{port}",
    } <= {*hosts}
    called = next(word for word in shlex.split(job["spec"]["entrypoint"]) if word.startswith("mlflow.tracking_uri="))
    assert called.partition("//")[2] in hosts
    assert "basic-auth" in container["command"]
    passwords = [v for v in container["env"] if "PASSWORD" in v["name"] or "SECRET" in v["name"]]
    assert len(passwords) == 2
    assert all("secretKeyRef" in variable["valueFrom"] for variable in passwords)


def test_the_job_writes_to_the_storage(source: Path) -> None:
    (job,) = documents(source, "rayjob")
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[:4] == ["python", "-m", "pipelines", "run"]
    assert {'output="/mnt/wave/runs/digits"', 'data.path="/mnt/wave/data/digits"', "cluster.address=auto"} <= {*words}
    assert job["spec"]["backoffLimit"] == 2
    assert job["spec"]["shutdownAfterJobFinishes"] is True  # Kueue admits no other


def test_the_server_may_be_slow_and_its_migration_long(source: Path) -> None:
    container = rendered.pods(source)["mlflow"]["spec"]["containers"][0]
    probes = {kind: container[f"{kind}Probe"] for kind in ("startup", "readiness", "liveness")}
    patience = {kind: p["periodSeconds"] * p["failureThreshold"] for kind, p in probes.items()}
    # Kubernetes waits 1 s where nothing is said, less than a server with many uploads may take.
    assert all(probe["timeoutSeconds"] >= 10 for probe in probes.values())
    assert min(probes[kind]["timeoutSeconds"] for kind in ("readiness", "liveness")) >= 30
    assert patience["startup"] >= 1800
    assert patience["liveness"] >= 300
    assert patience["readiness"] >= 60


def test_nobody_is_sent_to_the_server_before_the_account_is_there(source: Path) -> None:
    server, account = rendered.pods(source)["mlflow"]["spec"]["containers"]
    *_, address, ready = account["command"]
    assert account["readinessProbe"]["exec"]["command"] == ["test", "-e", ready]
    assert address == f"http://127.0.0.1:{server['ports'][0]['containerPort']}"
    assert not {"lifecycle", "livenessProbe"} & account.keys()


_WANTED = """\
pull_secrets = ["registry"]
priority_class = "batch"
annotations = { "sidecar.istio.io/inject" = "false" }
node_selector = { "example.org/pool" = "research" }
tolerations = [{ key = "team", operator = "Equal", value = "a", effect = "NoSchedule" }]
deadline_minutes = 90
"""


def test_where_pods_run_and_for_how_long_are_values(source: Path) -> None:
    text = source.read_text()
    start, end = text.index("pull_secrets ="), text.index('operator = "default"')
    text = text[:start] + _WANTED + text[end:]
    head, _, rest = text.partition("[workers.gpu]")
    rest = rest.replace("node_selector = {}", 'node_selector = { "example.org/gpu" = "l4" }', 1)
    rest = rest.replace("tolerations = []", 'tolerations = [{ key = "gpus-only", operator = "Exists" }]', 1)
    source.write_text(f"{head}[workers.gpu]{rest}")
    taint = {"key": "team", "operator": "Equal", "value": "a", "effect": "NoSchedule"}
    device = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    for name, pod in rendered.pods(source).items():
        gpu, spec = name.endswith("gpu"), pod["spec"]
        assert pod["metadata"]["annotations"] == {"sidecar.istio.io/inject": "false"}
        assert spec["imagePullSecrets"] == [{"name": "registry"}]
        assert spec["priorityClassName"] == "batch"
        assert spec["nodeSelector"] == {"example.org/pool": "research"} | ({"example.org/gpu": "l4"} if gpu else {})
        more = [{"key": "gpus-only", "operator": "Exists"}, device] if gpu else []
        assert spec["tolerations"] == [taint, *more]
    (job,), (cluster,) = documents(source, "rayjob"), documents(source, "raycluster")
    assert job["spec"]["activeDeadlineSeconds"] == 5400
    schemas.check(job, schemas.definition("rayjobs"))
    schemas.check(cluster, schemas.definition("rayclusters"))
    for document in documents(source, "mlflow"):
        schemas.check(document, plain(document["kind"]))


def test_without_such_values_nothing_is_said_of_them(source: Path) -> None:
    (job,) = documents(source, "rayjob")
    assert "activeDeadlineSeconds" not in job["spec"]
    for name, pod in rendered.pods(source).items():
        assert not {"nodeSelector", "priorityClassName", "imagePullSecrets"} & pod["spec"].keys()
        assert bool(pod["spec"].get("tolerations")) is name.endswith("gpu")
        assert "annotations" not in pod["metadata"]


def test_the_submitters_pod_says_that_it_is_not_started_again(source: Path) -> None:
    (job,) = documents(source, "rayjob")
    # A Job, as KubeRay makes it of this template, refuses the default, Always.
    assert job["spec"]["submitterPodTemplate"]["spec"]["restartPolicy"] == "Never"
