"""The manifests that values render to, and the pods that KubeRay 1.7.0 makes of them."""

import copy
import shutil
from pathlib import Path
from typing import Any

import yaml

from cluster.deploy import render, values

ROOT = Path(__file__).parents[3]
_CREATED = {
    "app.kubernetes.io/name": "kuberay",
    "app.kubernetes.io/created-by": "kuberay-operator",
}


def source(folder: Path) -> Path:
    """values.toml beside a checkout that has the run it names."""
    file = folder / "values.toml"
    file.write_text(render.VALUES.read_text())
    experiment = folder / values.load(file).run
    experiment.parent.mkdir(parents=True)
    shutil.copy(ROOT / values.load(file).run, experiment)
    return file


def change(file: Path, old: str, new: str, count: int = -1) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, count))


def documents(file: Path, name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(_files(file)[f"kubernetes/{name}.yaml"]))


_rendered: dict[str, dict[str, str]] = {}
"""What follows from each text of values. Rendering checks the run that it names by a process of
its own, which takes seconds; where the file lies changes nothing."""


def _files(file: Path) -> dict[str, str]:
    text = file.read_text()
    if text not in _rendered:
        _rendered[text] = render.files(values.load(file), file.parent)
    return _rendered[text]


def pods(file: Path) -> dict[str, dict[str, Any]]:
    """Name -> pod (metadata and spec) of all that runs: MLflow's, a RayCluster's, a RayJob's with its submitter."""
    found = {}
    for document in documents(file, "mlflow"):
        if document["kind"] == "Deployment":
            found["mlflow"] = document["spec"]["template"]
    (cluster,) = documents(file, "raycluster")
    (job,) = documents(file, "rayjob")
    found |= _made("cluster", "wave", cluster["spec"])
    found |= _made("job", "wave-x7k2p", job["spec"]["rayClusterSpec"])
    # Without a template KubeRay makes a pod of its own, with no security context at all.
    bare = {"spec": {"containers": [{"name": "ray-job-submitter"}]}}
    submitter = copy.deepcopy(job["spec"].get("submitterPodTemplate", bare))
    name = {"ray.io/originated-from-cr-name": job["metadata"]["name"]}
    _label(submitter, name | {"app.kubernetes.io/created-by": "kuberay-operator"})
    return found | {"submitter": submitter}


def _label(template: dict[str, Any], labels: dict[str, str]) -> None:
    template.setdefault("metadata", {}).setdefault("labels", {}).update(labels)


def _made(prefix: str, cluster: str, spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Head and workers as the operator completes them: labels, the autoscaler, the container that waits."""
    head = copy.deepcopy(spec["headGroupSpec"]["template"])
    own = {"ray.io/cluster": cluster, "ray.io/is-ray-node": "yes"}
    _label(head, own | {"ray.io/node-type": "head"})
    if spec["enableInTreeAutoscaling"]:
        options = spec["autoscalerOptions"]
        autoscaler = {"name": "autoscaler", "volumeMounts": options.get("volumeMounts", [])}
        if "securityContext" in options:
            autoscaler["securityContext"] = options["securityContext"]
        head["spec"]["containers"].append(autoscaler)
    found = {f"{prefix} head": head}
    for group in spec["workerGroupSpecs"]:
        worker = copy.deepcopy(group["template"])
        _label(worker, own | {"ray.io/node-type": "worker"})
        # The first container's copy, its security context, environment and mounts included.
        waiting = copy.deepcopy(worker["spec"]["containers"][0]) | {"name": "wait-gcs-ready"}
        worker["spec"]["initContainers"] = [waiting]
        found[f"{prefix} {group['groupName']}"] = worker
    for pod in found.values():
        pod["metadata"]["labels"] = _CREATED | pod["metadata"]["labels"]
    return found
