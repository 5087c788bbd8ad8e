"""Whether a cluster can run what we submit: one line a check, with the fix where one fails."""

import http.client
import json
import secrets
import shlex
import shutil
import tempfile
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from cluster.doctor import probe
from cluster.errors import ClusterError
from cluster.jobs.client import DOCTOR, Jobs, exit_code
from cluster.jobs.target import Target
from pipelines.config import proxies

PROJECT = "wave-templates"


@dataclass(frozen=True)
class Check:
    """One line: what was looked at and what was found; `fix` is empty when it is fine."""

    what: str
    found: str
    fix: str = ""
    answers: bool = True

    def __str__(self) -> str:
        return (
            f"ok    {self.what}: {self.found}" if not self.fix else f"FAIL  {self.what}: {self.found}. Fix: {self.fix}"
        )


def examine(target: Target, storage: str, mlflow: str) -> Iterator[Check]:
    """The checks one after the other; runs one small job on the cluster."""
    door = closed(target)
    yield door
    if not door.answers:
        return
    try:
        jobs = Jobs(target)
    except ClusterError as error:
        yield Check("token", str(error), "see docs/guides/cluster.md for where the cluster keeps its token")
        return
    yield Check("token", "accepted" if target.token else "none sent and none wanted")
    try:
        nodes = ask(jobs, storage, mlflow)
    except ClusterError as error:
        yield Check("nodes", str(error), "see the head's logs, and whether its Ray starts jobs at all")
        return
    yield from judge(nodes, storage, mlflow)
    yield from laptop(probe.versions(), nodes)
    yield from wanted(nodes, Path("pyproject.toml"))


def closed(target: Target) -> Check:
    """Whether the door is shut to those without a token."""
    try:
        with urllib.request.urlopen(f"{target.address}/api/jobs/", timeout=15):
            fix = "start Ray with RAY_AUTH_MODE=token on every node: anyone who reaches this port can run code there"
            return Check(target.address, "answers without a token", fix)
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return Check(target.address, "answers, and refuses those without a token")
        return Check(
            target.address, f"HTTP {error.code}", "give --address of Ray's dashboard, http://HOST:8265", answers=False
        )
    except (OSError, ValueError, http.client.HTTPException) as error:
        fix = "start the cluster, or forward its port 8265 (docs/guides/cluster.md), or correct --address"
        if way := proxies.through(target.address):
            fix = f"correct {way}, or name the host in no_proxy"
        return Check(target.address, f"does not answer ({getattr(error, 'reason', error)})", fix, answers=False)


def ask(jobs: Jobs, storage: str, mlflow: str) -> list[dict[str, Any]]:
    """What every node says of itself. Raises ClusterError when the job that asks them fails."""
    name = f"{DOCTOR}{secrets.token_hex(4)}"
    arguments = json.dumps({"folder": f"{storage}/.{name}" if storage else "", "uri": mlflow})
    with tempfile.TemporaryDirectory(prefix=name) as folder:
        shutil.copyfile(Path(probe.__file__), Path(folder) / "probe.py")
        command = f"exec python probe.py {shlex.quote(arguments)}"
        submission, *_ = jobs.submit(name, name, name, command, {"working_dir": folder})
    job = jobs.wait(submission, 300.0)
    log = jobs.logs(submission)
    if code := exit_code(job):
        last = (log.strip().splitlines() or [job.message or "no output"])[-1]
        raise ClusterError(f"the job that looks at the nodes failed with exit code {code}: {last[:300]}")
    return [json.loads(line.removeprefix(probe.MARKER)) for line in log.splitlines() if line.startswith(probe.MARKER)]


def judge(nodes: list[dict[str, Any]], storage: str, mlflow: str) -> Iterator[Check]:
    """The checks of what the nodes said."""
    yield _count(nodes)
    silent = [node for node in nodes if "error" in node]
    for node in silent:
        yield Check(f"node {node['address']}", f"no answer ({node['error']})", "restart Ray on that node or remove it")
    nodes = [node for node in nodes if node not in silent]
    first = nodes[0]["versions"] if nodes else {}
    for node in nodes:
        yield _versions(node, first, nodes[0]["address"])
    for node in nodes:
        yield _gpus(node)
    yield from _storage(nodes, storage)
    yield from _mlflow(nodes, mlflow)


def laptop(here: dict[str, str], nodes: list[dict[str, Any]]) -> Iterator[Check]:
    """Whether the machine that submits has the Ray of the nodes and their Python, of which 3.11 counts, not 3.11.7."""
    there = next((node["versions"] for node in nodes if "error" not in node), None)
    if there is None:
        return
    for name, parts in (("ray", 3), ("python", 2)):
        have, wanted = (".".join(v[name].split(".")[:parts]) for v in (here, there))
        fix = "" if have == wanted else f"use {name} {wanted} here, or nodes with {have}"
        yield Check(f"{name} of this machine", have if not fix else f"{have}, the nodes have {wanted}", fix)


def wanted(nodes: list[dict[str, Any]], pyproject: Path) -> Iterator[Check]:
    """Whether the nodes have the versions that the checkout's `pyproject` asks for; nothing where it is not ours."""
    try:
        project = tomllib.loads(pyproject.read_text())["project"]
    except (OSError, ValueError, KeyError):
        return
    if project.get("name") != PROJECT:
        return
    asked = [
        f"python{project['requires-python']}",
        *project["dependencies"],
        *project["optional-dependencies"]["pipelines"],
    ]
    ranges = {r.name: r.specifier for r in map(Requirement, asked)}
    for node in (n for n in nodes if "error" not in n):
        have = node["versions"]
        bad = [name for name, version in have.items() if version and version not in ranges.get(name, SpecifierSet())]
        what = f"packages {node['address']}"
        if bad:
            found = ", ".join(f"{name} {have[name]}" for name in bad)
            asks = ", ".join(f"{name}{ranges[name]}" for name in bad)
            yield Check(what, found, f"install {asks} there, as this checkout's pyproject.toml asks")
        else:
            yield Check(what, "as this checkout's pyproject.toml asks")


def _count(nodes: list[dict[str, Any]]) -> Check:
    if not nodes:
        return Check("nodes", "none answered", "wait until the head is up, and look again")
    alone = all(node["head"] for node in nodes)
    later = "the head alone; workers may still come when a job wants them, and are not looked at" if alone else ""
    return Check("nodes", f"{len(nodes)} looked at" + (f": {later}" if later else ""))


def _versions(node: dict[str, Any], first: dict[str, str], reference: str) -> Check:
    have = node["versions"]
    text = ", ".join(f"{name} {version or 'missing'}" for name, version in have.items())
    if missing := [name for name, version in have.items() if not version]:
        return Check(
            f"node {node['address']}", text, f"install {', '.join(missing)} there: use one image for all nodes"
        )
    if other := [name for name in have if have[name] != first[name]]:
        wanted = ", ".join(f"{name}=={first[name]}" for name in other)
        return Check(f"node {node['address']}", text, f"node {reference} has {wanted}: use one image for all nodes")
    return Check(f"node {node['address']}", text)


def _gpus(node: dict[str, Any]) -> Check:
    there, known = node["gpus"], node["ray_gpus"]
    if there < known or (there and not known):
        fix = "start Ray there with --num-gpus set to what nvidia-smi -L lists, and give its container the GPUs"
        return Check(f"GPUs {node['address']}", f"Ray counts {known:g}, the driver shows {there}", fix)
    return Check(f"GPUs {node['address']}", f"{known:g}")


def _storage(nodes: list[dict[str, Any]], storage: str) -> Iterator[Check]:
    if not storage:
        yield Check("storage", "not known", "give --storage DIR, an absolute folder that every node sees")
        return
    for node in nodes:
        what = f"storage {storage} on {node['address']}"
        if node["write"]:
            yield Check(
                what, f"not writable ({node['write']})", "mount it there and give the job's user the right to write"
            )
        elif node["unseen"]:
            others = ", ".join(node["unseen"])
            yield Check(
                what,
                f"does not show what {others} wrote",
                "mount the same shared folder (NFS, EFS, Filestore) on all nodes",
            )
        else:
            yield Check(what, "writable" + (f" and shared by {len(nodes)} nodes" if len(nodes) > 1 else ""))


def _mlflow(nodes: list[dict[str, Any]], mlflow: str) -> Iterator[Check]:
    if not mlflow:
        yield Check("MLflow", "not known", "give --mlflow http://HOST:PORT or set MLFLOW_TRACKING_URI")
        return
    for node in nodes:
        what, trouble, have = (
            f"MLflow {mlflow} from {node['address']}",
            node["mlflow_error"],
            node["versions"]["mlflow"],
        )
        if trouble.startswith("HTTP 401"):
            yield Check(
                what, "wants a password", "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD on the nodes"
            )
        elif trouble.startswith("HTTP 403"):
            yield Check(what, trouble, "name this host in the server's --allowed-hosts, or use a user who may read")
        elif trouble:
            yield Check(what, f"not reached ({trouble})", "start the server, and open its port to the nodes")
        elif node["mlflow"] != have:
            fix = f"install mlflow=={node['mlflow']} on the nodes: a newer one changes the store for good"
            yield Check(what, f"server {node['mlflow']}, node {have or 'none'}", fix)
        else:
            yield Check(what, f"version {have}")
