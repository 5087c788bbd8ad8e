"""Every pod that results may run where Pod Security is "restricted", and holds no more secrets than it needs."""

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.deploy import rendered
from tests.cluster.deploy.pod_security import violations

ADMINISTRATOR, ACCOUNT = "wave-mlflow", "wave-mlflow-account"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return rendered.source(tmp_path)


@pytest.mark.parametrize("queue", ["", "team-a"])
def test_every_pod_may_run_where_pod_security_is_restricted(source: Path, queue: str) -> None:
    rendered.change(source, 'kueue_queue = ""', f'kueue_queue = "{queue}"')
    pods = rendered.pods(source)
    names = {"mlflow", "submitter", "cluster head", "cluster cpu", "cluster gpu", "job head", "job cpu", "job gpu"}
    assert pods.keys() == names
    annotations = {name: pod["metadata"].get("annotations", {}) for name, pod in pods.items()}
    broken = {name: violations(pod["spec"], annotations[name]) for name, pod in pods.items()}
    assert not {name: found for name, found in broken.items() if found}
    # Whatever a webhook adds beside them falls under the pod's own context as far as that goes.
    for pod in pods.values():
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("hostNetwork",), True),
        (("hostPID",), True),
        (("hostIPC",), True),
        (("volumes", 0), {"name": "root", "hostPath": {"path": "/"}}),
        (("volumes", 0), {"name": "share", "nfs": {"server": "a", "path": "/"}}),
        (("securityContext", "runAsUser"), 0),
        (("securityContext", "sysctls"), [{"name": "kernel.msgmax", "value": "1"}]),
        (("securityContext", "seLinuxOptions"), {"type": "spc_t"}),
        (("securityContext", "windowsOptions"), {"hostProcess": True}),
        (("securityContext", "appArmorProfile"), {"type": "Unconfined"}),
        (("securityContext", "seccompProfile"), {"type": "Unconfined"}),
        (("containers", 0, "securityContext"), {}),
        (("containers", 0, "securityContext", "allowPrivilegeEscalation"), True),
        (("containers", 0, "securityContext", "privileged"), True),
        (("containers", 0, "securityContext", "capabilities"), {"drop": ["NET_RAW"]}),
        (("containers", 0, "securityContext", "capabilities"), {"drop": ["ALL"], "add": ["SYS_PTRACE"]}),
        (("containers", 0, "securityContext", "runAsNonRoot"), False),
        (("containers", 0, "securityContext", "runAsUser"), 0),
        (("containers", 0, "securityContext", "seccompProfile"), {"type": "Unconfined"}),
        (("containers", 0, "securityContext", "procMount"), "Unmasked"),
        (("containers", 0, "ports"), [{"containerPort": 1, "hostPort": 1}]),
        (("containers", 0, "livenessProbe"), {"httpGet": {"host": "10.0.0.1", "port": 1}}),
        (("initContainers",), [{"name": "first"}]),
    ],
)
def test_the_rules_find_a_slip(source: Path, path: tuple[str | int, ...], value: Any) -> None:
    spec = copy.deepcopy(rendered.pods(source)["mlflow"]["spec"])
    assert not violations(spec)
    place: Any = spec
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert violations(spec)


def _tokens(spec: dict[str, Any]) -> set[str]:
    """The containers that see a token for Kubernetes' API."""
    every = [*spec["containers"], *spec.get("initContainers", [])]
    if spec.get("automountServiceAccountToken", True):
        return {container["name"] for container in every}
    volumes = {
        volume["name"]
        for volume in spec.get("volumes", [])
        for source in volume.get("projected", {}).get("sources", [])
        if "serviceAccountToken" in source
    }
    return {c["name"] for c in every if volumes & {m["name"] for m in c.get("volumeMounts", [])}}


def test_the_autoscaler_alone_has_a_token_of_kubernetes(source: Path) -> None:
    seen = {name: _tokens(pod["spec"]) for name, pod in rendered.pods(source).items()}
    heads = {"cluster head", "job head"}
    assert {name: found for name, found in seen.items() if found} == {head: {"autoscaler"} for head in heads}
    rendered.change(source, 'kueue_queue = ""', 'kueue_queue = "team-a"')
    pods = rendered.pods(source)
    assert not any(_tokens(pod["spec"]) for pod in pods.values())
    assert not any("projected" in volume for pod in pods.values() for volume in pod["spec"].get("volumes", []))


def test_the_autoscaler_finds_its_token_where_ray_looks_for_it(source: Path) -> None:
    pod = rendered.pods(source)["cluster head"]["spec"]
    container = next(c for c in pod["containers"] if c["name"] == "autoscaler")
    mount = next(m for m in container["volumeMounts"] if m["name"] == "api-token")
    volume = next(v for v in pod["volumes"] if v["name"] == "api-token")
    files = set()
    for part in volume["projected"]["sources"]:
        (kind,) = part.values()
        files |= {f"{mount['mountPath']}/{item['path']}" for item in kind.get("items", [kind])}
    # Names of ray/autoscaler/_private/kuberay/node_provider.py, and the namespace, as Kubernetes mounts them.
    place = "/var/run/secrets/kubernetes.io/serviceaccount"
    assert files == {f"{place}/token", f"{place}/ca.crt", f"{place}/namespace"}


def _secrets(spec: dict[str, Any]) -> dict[str, set[str]]:
    """Container -> the Secrets that its environment is filled from."""
    found = {}
    for container in (*spec["containers"], *spec.get("initContainers", [])):
        parts = [variable.get("valueFrom", {}) for variable in container.get("env", [])]
        found[container["name"]] = {part["secretKeyRef"]["name"] for part in parts if "secretKeyRef" in part}
    return found


def test_the_administrators_password_stays_in_the_pod_of_mlflow(source: Path) -> None:
    pods = rendered.pods(source)
    assert _secrets(pods.pop("mlflow")["spec"]) == {"mlflow": {ADMINISTRATOR}, "account": {ADMINISTRATOR, ACCOUNT}}
    assert _secrets(pods.pop("submitter")["spec"]) == {"ray-job-submitter": set()}
    for name, pod in pods.items():
        for container, secrets in _secrets(pod["spec"]).items():
            assert secrets == (set() if container == "autoscaler" else {ACCOUNT}), (name, container)
        assert not any("secret" in volume for volume in pod["spec"]["volumes"])
